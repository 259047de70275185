"""One step of a rollout, without replicas: only numbers of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tidegate.protocol.resources import RolloutPhase
from tidegate.spec import RolloutSpec, Strategy
from tidegate_controlplane.domain.rollout import (
    Observed,
    RolloutFact,
    RolloutStep,
    Side,
    Stage,
    advance,
    stages,
)

R = RolloutPhase
UP = Side(live=1, ready=1)
STARTING = Side(live=1)
LOST = Side(lost="Refused: too large")


def rollout(strategy: Strategy = Strategy.CANARY, **values: Any) -> RolloutFact:
    fact = RolloutFact("old", "new", strategy, stages(RolloutSpec(strategy=strategy)))
    return replace(fact, **values)


def taken(fact: RolloutFact, stable: Side = UP, new: Side = UP, **values: Any) -> RolloutStep:
    return advance(fact, Observed(stable=stable, new=new, **{"desired": 1, "fits": 9} | values))


def test_strategies_are_told_apart_by_their_stages_alone() -> None:
    assert stages(RolloutSpec()) == stages(RolloutSpec(strategy=Strategy.RECREATE)) == ()
    assert [s.share for s in rollout().stages] == [0.05, 0.25, 0.5]
    assert rollout(Strategy.BLUE_GREEN).stages == (Stage(1.0, 60.0, full=True),)
    assert rollout(Strategy.SHADOW).stages == (Stage(0.0, 300.0, copied=0.1, min_compared=20),)


def test_a_canary_is_copied_to_only_when_its_drift_is_judged() -> None:
    plain = RolloutSpec.model_validate({"strategy": "canary"})
    judged = RolloutSpec.model_validate({"strategy": "canary", "rollback_on": {"drift": 0.1}})
    assert {s.copied for s in stages(plain)} == {0.0}
    assert {s.copied for s in stages(judged)} == {0.1}


def test_a_canary_has_replicas_for_its_share_beside_a_whole_stable_set() -> None:
    shifting = taken(rollout(phase=R.SHIFTING, step=1), new=STARTING, desired=8)
    assert (shifting.phase, shifting.wanted) == (R.SHIFTING, {"old": 8, "new": 2})


def test_an_idle_deployment_keeps_one_replica_of_each_while_it_is_watched() -> None:
    assert taken(rollout(phase=R.BAKING), desired=0).wanted == {"old": 1, "new": 1}


def test_the_share_rises_only_when_the_replicas_for_it_are_ready() -> None:
    waiting = taken(rollout(phase=R.SHIFTING, step=1), new=UP, desired=8)
    assert (waiting.phase, waiting.weights["new"]) == (R.SHIFTING, 0.05)
    baking = taken(rollout(phase=R.SHIFTING, step=1), new=Side(2, 2), desired=8)
    assert (baking.phase, baking.weights["new"]) == (R.BAKING, 0.25)


def test_a_later_stage_without_room_bakes_with_the_replicas_there_are() -> None:
    done = taken(rollout(phase=R.SHIFTING, step=2), new=UP, desired=8, fits=0)
    assert done.phase is R.BAKING


def test_the_last_bake_ends_in_taking_all() -> None:
    last = rollout(phase=R.BAKING, step=2)
    assert taken(last, baked_s=59.9).phase is R.BAKING
    moving = taken(last, stable=Side(3, 3), new=Side(2, 2), baked_s=60.0, desired=3)
    assert (moving.phase, moving.step, moving.wanted) == (R.SHIFTING, 3, {"new": 3})
    assert moving.weights == {"old": 0.5, "new": 0.5}
    assert taken(last, baked_s=60.0).phase is R.PROMOTED


def test_a_shadow_ends_when_both_its_time_and_its_answers_are_enough() -> None:
    shadow = rollout(Strategy.SHADOW, phase=R.BAKING)
    assert taken(shadow, baked_s=300.0, compared=19).phase is R.BAKING
    assert taken(shadow, baked_s=299.0, compared=20).phase is R.BAKING
    assert taken(shadow, baked_s=300.0, compared=20).phase is R.PROMOTED
    assert taken(shadow).weights == {"old": 1.0, "new": 0.0}
    assert taken(shadow).copied == 0.1


def test_preflight_gives_up_when_the_first_stage_has_no_room() -> None:
    done = taken(rollout(), new=Side(), fits=0, shortage="one more replica needs 2 GiB")
    assert (done.phase, done.reason) == (R.ROLLED_BACK, "NoRoom")
    assert done.message == "1 more replicas are needed, 0 fit: one more replica needs 2 GiB"
    waiting = taken(rollout(), new=Side(), fits=0, settling=True)
    assert (waiting.phase, waiting.wanted) == (R.PREFLIGHT, {"old": 1})


def test_blue_green_needs_room_for_the_whole_set() -> None:
    blue_green = rollout(Strategy.BLUE_GREEN)
    assert taken(blue_green, Side(3, 3), Side(), desired=3, fits=2).reason == "NoRoom"
    assert taken(blue_green, Side(3, 3), Side(), desired=3, fits=3).phase is R.SHIFTING


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"fault": ("Latency", "too slow")}, "Latency"),
        ({"new": LOST}, "RevisionFailing"),
    ],
)
def test_a_fault_sends_all_traffic_back_at_once(values: dict[str, Any], reason: str) -> None:
    done = taken(rollout(phase=R.BAKING, step=1), **{"new": UP, **values})
    assert done.reason == reason
    assert done.weights == {"old": 1.0, "new": 0.0}
    assert done.wanted == {"old": 1, "new": 0}


def test_who_asked_to_promote_is_not_overruled_by_the_watch() -> None:
    asked = rollout(phase=R.BAKING, requested="promote")
    assert taken(asked, fault=("Latency", "too slow")).phase is R.PROMOTED


def test_going_back_ends_when_the_stable_set_is_whole_and_the_new_one_gone() -> None:
    back = rollout(phase=R.ROLLING_BACK, reason="Aborted", message="aborted on request")
    assert taken(back, stable=UP, new=UP).phase is R.ROLLING_BACK
    assert taken(back, stable=UP, new=Side(), desired=2).phase is R.ROLLING_BACK
    done = taken(back, stable=UP, new=Side())
    assert (done.phase, done.reason) == (R.ROLLED_BACK, "Aborted")


def test_going_back_in_place_keeps_the_new_revision_until_the_former_answers() -> None:
    back = rollout(Strategy.ROLLING, phase=R.ROLLING_BACK)
    done = taken(back, stable=STARTING, new=UP)
    assert (done.wanted, done.weights) == ({"old": 1}, {"old": 0.0, "new": 1.0})
    half = taken(back, stable=UP, new=UP, desired=2)
    assert half.weights == {"old": 0.5, "new": 0.5}


def test_a_stable_revision_that_cannot_answer_is_not_protected() -> None:
    done = taken(rollout(), stable=LOST, new=STARTING)
    assert (done.step, done.wanted) == (3, {"new": 1})
    assert taken(rollout(), stable=LOST, new=LOST).phase is R.SHIFTING


def test_rolling_gives_the_new_revision_its_part_once_the_former_is_too_few() -> None:
    rolling = rollout(Strategy.ROLLING, phase=R.SHIFTING)
    whole = taken(rolling, stable=Side(3, 3), new=UP, desired=3)
    assert whole.weights == {"old": 1.0, "new": 0.0}
    fewer = taken(rolling, stable=Side(2, 2), new=Side(2, 2), desired=3)
    assert fewer.weights == {"old": 0.5, "new": 0.5}
