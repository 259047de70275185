"""Memory for replicas: what fits now, and what can never fit."""

from __future__ import annotations

from tidegate.protocol.resources import ResolvedPlan
from tidegate.spec import SpecIssue, Strategy
from tidegate_controlplane.domain.room import Room, refusal

GIB = 1024**3


def plan(memory_gib: int, min_replicas: int = 1) -> ResolvedPlan:
    return ResolvedPlan(
        provisioner="local",
        precision="int8",
        context_tokens=128,
        max_sequences=1,
        kv_cache_bytes=0,
        weights_bytes=0,
        memory_bytes=memory_gib * GIB,
        min_replicas=min_replicas,
        max_replicas=max(1, min_replicas),
        target_in_flight=1,
        idle_timeout_s=1,
        drain_timeout_s=1,
    )


def refused(
    new: ResolvedPlan,
    former: ResolvedPlan | None = None,
    strategy: Strategy = Strategy.ROLLING,
    reserved_gib: int = 0,
) -> SpecIssue | None:
    return refusal(new, former, strategy, reserved_bytes=reserved_gib * GIB, total_bytes=16 * GIB)


def test_each_replica_takes_its_revisions_memory() -> None:
    room = Room(16 * GIB, 7 * GIB, {"small": 2 * GIB, "large": 4 * GIB})
    assert (room.fits("small"), room.fits("large")) == (3, 1)
    assert room.after("large", 1).fits("small") == 1
    assert room.after("large", 2).fits("small") == 0


def test_a_shortage_is_told_with_its_figures() -> None:
    room = Room(16 * GIB, GIB, {"large": 4 * GIB})
    assert room.shortage("large") == (
        "one more replica needs 4.0 GiB, and 1.0 GiB of this machine's 16.0 GiB are free"
    )


def test_what_others_always_keep_is_not_there_for_a_new_one() -> None:
    assert refused(plan(6, min_replicas=2), reserved_gib=4) is None
    issue = refused(plan(6, min_replicas=2), reserved_gib=5)
    assert issue and (issue.field, issue.value) == ("scaling.min_replicas", 2)
    assert (
        "2 replicas of 6.0 GiB do not fit: 11.0 GiB of 16.0 GiB are not reserved" in issue.message
    )


def test_a_deployment_at_zero_needs_room_for_one() -> None:
    assert refused(plan(6, min_replicas=0), reserved_gib=10) is None
    assert refused(plan(6, min_replicas=0), reserved_gib=11)


def test_only_strategies_that_need_both_revisions_at_once_are_refused_without_room_for_both() -> (
    None
):
    for strategy in Strategy:
        fits = strategy in (Strategy.ROLLING, Strategy.RECREATE)
        assert (refused(plan(9), plan(9), strategy) is None) == fits
    issue = refused(plan(9), plan(9), Strategy.CANARY)
    assert issue and (issue.field, issue.value) == ("rollout.strategy", "canary")
    assert "use rolling, which replaces in place, or recreate" in issue.message


def test_blue_green_needs_the_whole_new_set_and_a_canary_one_replica() -> None:
    former, new = plan(4, min_replicas=2), plan(4, min_replicas=2)
    assert refused(new, former, Strategy.BLUE_GREEN) is None
    assert refused(new, former, Strategy.BLUE_GREEN, reserved_gib=1)
    assert refused(new, former, Strategy.CANARY, reserved_gib=4) is None


def test_what_runs_elsewhere_takes_no_room_here() -> None:
    room = Room(16 * GIB, 0, {"here": GIB, "there": 0})
    assert (room.fits("here"), room.fits("there") > 1000) == (0, True)
    assert room.after("there", 1000).free_bytes == 0
    away = plan(1000).model_copy(update={"provisioner": "ray"})
    assert refused(away, reserved_gib=16) is None
    assert refused(plan(16), former=away, strategy=Strategy.CANARY) is None
