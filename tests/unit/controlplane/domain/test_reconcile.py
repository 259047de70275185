"""One step from what is observed towards what is declared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.protocol.resources import DeploymentPhase, ReplicaPhase, RolloutPhase
from tidegate.spec import RolloutSpec, Strategy
from tidegate_controlplane.domain.group import (
    HOPELESS_FAILURES,
    LIVE,
    STABLE_S,
    Backoff,
    ReplicaFact,
    consecutive_failures,
)
from tidegate_controlplane.domain.reconcile import DeploymentFact, Step, Watched, step
from tidegate_controlplane.domain.replicas import NODE_LOST
from tidegate_controlplane.domain.rollout import OPEN, RolloutFact, stages
from tidegate_controlplane.domain.room import Room
from tidegate_controlplane.domain.states import DEPLOYMENT, ROLLOUT, check_transition

D, P = DeploymentPhase, ReplicaPhase
BACKOFF = Backoff(base_s=1.0, max_s=60.0)


def declared(desired: int = 1, **values: Any) -> DeploymentFact:
    fact = DeploymentFact(
        phase=D.READY,
        revision_id="new",
        serving_revision_id="new",
        deleting=False,
        desired=desired,
        room=room(),
    )
    return replace(fact, **values)


def room(replicas: int = 100) -> Room:
    """For so many more of any revision."""
    return Room(1000, 10 * replicas, dict.fromkeys(("older", "old", "new"), 10))


def updated(desired: int = 1, strategy: Strategy = Strategy.ROLLING, **values: Any) -> Any:
    """A deployment whose revision `new` takes over from `old`."""
    rollout = RolloutFact("old", "new", strategy, stages(RolloutSpec(strategy=strategy)))
    return declared(desired, serving_revision_id="old", rollout=rollout, **values)


def created(done: Step) -> int:
    return sum(done.create.values())


def replicas(phase: ReplicaPhase, number: int = 1, of: str = "new", **values: Any) -> Any:
    return [ReplicaFact(f"{of}-{phase}-{index}", of, phase, **values) for index in range(number)]


def failed(ago_s: float | None = 1000.0, **values: Any) -> ReplicaFact:
    given = {"reason": "Crashed", "message": "exited with status 1"} | values
    return ReplicaFact("f", "new", P.FAILED, failed_ago_s=ago_s, **given)


def taken(deployment: DeploymentFact, *groups: Any) -> Step:
    return step(deployment, [fact for group in groups for fact in group], BACKOFF)


# --- counting -------------------------------------------------------------------------------------


def test_missing_replicas_are_created() -> None:
    assert created(taken(declared(3), replicas(P.READY), replicas(P.LOADING))) == 1


def test_a_satisfied_deployment_needs_nothing() -> None:
    done = taken(declared(2), replicas(P.READY, 2))
    assert (created(done), done.drain, done.phase, done.reason) == (0, (), D.READY, "Ready")
    assert done.message == "2 replicas ready"


def test_final_and_draining_replicas_do_not_count() -> None:
    gone = [*replicas(P.TERMINATED), *replicas(P.DRAINING)]
    assert created(taken(declared(1), gone)) == 1


def test_surplus_ends_those_not_ready_first_then_the_idle_then_the_newest() -> None:
    facts = [
        ReplicaFact("busy", "new", P.READY, in_flight=5),
        ReplicaFact("idle-old", "new", P.READY),
        ReplicaFact("idle-new", "new", P.READY),
        ReplicaFact("loading", "new", P.LOADING),
    ]
    assert taken(declared(3), facts).drain == ("loading",)
    assert taken(declared(2), facts).drain == ("loading", "idle-new")
    assert taken(declared(1), facts).drain == ("loading", "idle-new", "idle-old")


# --- phases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (D.PENDING, D.PROVISIONING),
        (D.PROVISIONING, D.PROVISIONING),
        (D.FAILED, D.PROVISIONING),
        (D.IDLE, D.WAKING),
        (D.READY, D.WAKING),
    ],
)
def test_the_first_start_is_provisioning_and_any_later_one_is_waking(
    before: DeploymentPhase, after: DeploymentPhase
) -> None:
    assert taken(declared(1, phase=before), replicas(P.STARTING)).phase is after


def test_zero_replicas_wanted_is_idle_and_healthy() -> None:
    done = taken(declared(0))
    assert (done.phase, done.hopeless) == (D.IDLE, None)


def test_a_deployment_that_grows_is_ready_all_along() -> None:
    done = taken(declared(3), replicas(P.READY), replicas(P.STARTING, 2))
    assert (done.phase, done.reason) == (D.READY, "ScalingUp")
    assert done.message == "1 replica ready, 3 wanted"


# --- updates --------------------------------------------------------------------------------------


def test_a_rolling_update_starts_the_new_revision_beside_the_former() -> None:
    done = taken(updated(2), replicas(P.READY, 2, of="old"))
    assert (created(done), done.drain) == (2, ())
    assert (done.serving_revision_id, done.phase) == ("old", D.UPDATING)


def test_a_rolling_update_waits_until_the_new_revision_can_carry_the_traffic() -> None:
    former = replicas(P.READY, 2, of="old")
    half = taken(updated(2), former, replicas(P.READY), replicas(P.LOADING))
    assert (half.serving_revision_id, half.drain) == ("old", ())
    whole = taken(updated(2), former, replicas(P.READY, 2))
    assert whole.serving_revision_id == "new"
    assert whole.drain == ("old-ready-0", "old-ready-1")
    assert whole.phase is D.READY


def test_a_rolling_update_without_work_drains_the_former_and_starts_nothing() -> None:
    done = taken(updated(0), replicas(P.READY, of="old"))
    assert (created(done), done.drain) == (0, ("old-ready-0",))
    assert (done.serving_revision_id, done.phase) == ("new", D.IDLE)


def test_a_rollout_that_fails_is_degraded_and_leaves_the_former_alone() -> None:
    done = taken(updated(1), replicas(P.READY, of="old"), [failed(ago_s=0.0)])
    assert (done.phase, done.reason) == (D.DEGRADED, "RolloutFailing")
    assert (created(done), done.drain, done.serving_revision_id) == (0, (), "old")
    assert "Crashed: exited with status 1" in done.message
    assert done.hopeless is None


def test_without_room_beside_it_a_former_replica_makes_way_one_at_a_time() -> None:
    former = replicas(P.READY, 2, of="old")
    first = taken(updated(2, room=room(0)), former)
    assert (created(first), first.drain) == (0, ("old-ready-0",))
    assert (first.phase, first.weights) == (D.UPDATING, {"old": 1.0, "new": 0.0})
    draining = replicas(P.DRAINING, of="old")
    assert taken(updated(2, room=room(0)), former[1:], draining).drain == ()
    second = taken(updated(2, room=room(1)), former[1:])
    assert (created(second), second.drain) == (1, ())
    third = taken(updated(2, room=room(0)), former[1:], replicas(P.READY))
    assert (third.drain, third.weights) == (("old-ready-1",), {"old": 0.5, "new": 0.5})


def test_nothing_makes_way_for_a_revision_whose_start_is_held_back_or_that_fits_nowhere() -> None:
    former = replicas(P.READY, of="old")
    assert taken(updated(1, room=room(0)), former, [failed(ago_s=0.0)]).drain == ()
    huge = Room(1000, 0, {"old": 10, "new": 20})
    done = taken(updated(1, room=huge), former)
    assert (done.drain, done.phase, done.reason) == ((), D.DEGRADED, "NoRoom")


def test_a_replica_without_room_is_not_requested_and_the_figures_are_told() -> None:
    done = taken(declared(3, room=room(1)), replicas(P.READY))
    assert created(done) == 1
    full = taken(declared(3, room=room(0)), replicas(P.READY))
    assert (created(full), full.phase, full.reason) == (0, D.DEGRADED, "NoRoom")
    assert full.message == (
        "1 replica ready, 3 wanted: one more replica needs 0 MiB, "
        "and 0 MiB of this machine's 0 MiB are free"
    )


def test_a_revision_that_was_rolled_back_is_not_started_again() -> None:
    done = taken(declared(1, serving_revision_id="old"), replicas(P.READY, of="old"))
    assert (created(done), done.drain, done.serving_revision_id) == (0, (), "old")
    assert (done.phase, done.weights) == (D.READY, {"old": 1.0})


def test_a_replica_that_nobody_wants_stays_until_the_wanted_ones_carry_the_traffic() -> None:
    left = replicas(P.READY, of="older")
    waiting = taken(declared(1), left, replicas(P.LOADING))
    assert waiting.drain == ()
    assert taken(declared(1), left, replicas(P.READY)).drain == ("older-ready-0",)


def test_recreate_drains_the_former_before_it_starts_the_new_revision() -> None:
    wanted = updated(1, Strategy.RECREATE)
    first = taken(wanted, replicas(P.READY, of="old"))
    assert (created(first), first.drain, first.phase) == (0, ("old-ready-0",), D.UPDATING)
    second = taken(wanted, replicas(P.DRAINING, of="old"))
    assert (created(second), second.phase, second.reason) == (0, D.UPDATING, "Recreating")
    third = taken(wanted, replicas(P.TERMINATED, of="old"))
    assert (third.create, third.serving_revision_id) == ({"new": 1}, "old")


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "wait_s"), [(0, 0), (1, 1), (2, 2), (3, 4), (7, 60), (50, 60)]
)
def test_the_back_off_doubles_up_to_its_bound(failures: int, wait_s: float) -> None:
    assert BACKOFF.after(failures) == wait_s


def test_a_failed_replica_is_replaced_after_its_back_off() -> None:
    early = taken(declared(), [failed(), failed(ago_s=1.5)])
    assert (created(early), early.retry_in_s, early.phase) == (0, 0.5, D.DEGRADED)
    due = taken(declared(), [failed(), failed(ago_s=2.0)])
    assert (created(due), due.retry_in_s) == (1, None)


def test_a_back_off_that_was_forgotten_by_a_restart_is_over() -> None:
    assert created(taken(declared(), [failed(ago_s=None)])) == 1


def test_a_refused_replica_is_not_tried_again() -> None:
    refusal = failed(refused=True, reason="Pickled", message="its weights are pickled")
    done = taken(declared(), [refusal])
    assert (created(done), done.phase, done.reason) == (0, D.FAILED, "Pickled")
    assert done.message == "its weights are pickled"
    assert done.hopeless == "it cannot start: its weights are pickled"


def test_a_refused_replica_is_tried_again_once_forgiven() -> None:
    done = taken(declared(phase=D.FAILED), [failed(refused=True, forgiven=True)])
    assert (created(done), done.phase, done.hopeless) == (1, D.PROVISIONING, None)


def test_a_refused_replica_beside_a_ready_one_is_degraded() -> None:
    done = taken(declared(2), replicas(P.READY), [failed(refused=True)])
    assert (done.phase, done.hopeless, created(done)) == (D.DEGRADED, None, 0)


def test_a_crash_after_a_refusal_is_what_counts_since_the_model_has_started_meanwhile() -> None:
    crashed = failed(ago_s=5.0, ready_for_s=3600.0)
    refused_later_in_the_list = failed(ago_s=500.0, refused=True)
    done = taken(declared(), [crashed, refused_later_in_the_list])
    assert (created(done), done.phase) == (1, D.DEGRADED)


def test_failures_in_a_row_are_counted_up_to_what_ended_well() -> None:
    def count(*facts: Any) -> int:
        return len(consecutive_failures([fact for group in facts for fact in group]))

    bad = [failed(), failed()]
    assert count(bad) == 2
    assert count(bad, replicas(P.STARTING), bad) == 4
    assert count(bad, replicas(P.READY), bad) == 2
    assert count(bad, replicas(P.TERMINATED), [failed()]) == 1
    assert count(bad, [failed(forgiven=True)], [failed()]) == 1
    assert count(bad, [failed(ready_for_s=STABLE_S)]) == 1
    assert count(bad, [failed(ready_for_s=STABLE_S - 1)]) == 3
    assert count(bad, replicas(P.READY)) == 0


def test_those_who_wait_are_told_after_some_failures_in_a_row() -> None:
    bad = [failed(ago_s=0.0)] * HOPELESS_FAILURES
    assert taken(declared(), bad[1:]).hopeless is None
    told = taken(declared(), bad)
    assert told.hopeless == ("its replicas failed 3 times in a row: Crashed: exited with status 1")
    assert told.retry_in_s == 4.0


def test_a_request_after_the_back_off_is_held_again_so_that_it_is_tried_again() -> None:
    bad = [failed()] * HOPELESS_FAILURES
    assert taken(declared(0), bad).hopeless is None
    assert taken(declared(1), bad, replicas(P.STARTING)).hopeless is None


def test_nobody_is_told_that_there_is_no_hope_while_a_replica_answers() -> None:
    bad = [failed(ago_s=0.0)] * HOPELESS_FAILURES
    assert taken(declared(2), replicas(P.READY), bad).hopeless is None
    assert taken(declared(), replicas(P.READY, of="old"), bad).hopeless is None


# --- capacity -------------------------------------------------------------------------------------

FULL = {"reason": "NoCapacity", "message": "it needs 2 GPUs, and no node has more than 1"}


def test_a_start_without_capacity_is_backed_off_from_and_says_what_is_missing() -> None:
    full = [failed(ago_s=0.0, **FULL)] * 4
    done = taken(declared(), full)
    assert (created(done), done.retry_in_s) == (0, 8.0)
    assert (done.phase, done.reason) == (D.DEGRADED, "NoCapacity")
    assert done.message == "NoCapacity: it needs 2 GPUs, and no node has more than 1"


def test_a_replica_lost_with_its_node_however_often_is_no_crash_of_the_model() -> None:
    lost = [failed(ago_s=0.0, reason=NODE_LOST, message="node 10.0.0.3 was lost")] * 5
    assert taken(declared(), lost).hopeless is None
    crashed = [failed(ago_s=0.0, reason="Crashed", message="boom")] * 5
    assert taken(declared(), crashed).hopeless is not None


def test_no_capacity_however_often_leaves_hope_and_is_no_crash_of_the_model() -> None:
    full = [failed(ago_s=0.0, **FULL)] * (HOPELESS_FAILURES + 2)
    crashes = [failed(ago_s=0.0)] * (HOPELESS_FAILURES - 1)
    assert taken(declared(), full).hopeless is None
    assert taken(declared(), full, crashes).hopeless is None
    told = taken(declared(), full, crashes, [failed(ago_s=0.0)]).hopeless
    assert told is not None
    assert "failed 3 times in a row" in told


def test_no_capacity_for_a_new_revision_does_not_roll_it_back() -> None:
    full = [failed(ago_s=1000.0, **FULL)] * (HOPELESS_FAILURES + 2)
    done = taken(updated(), replicas(P.READY, of="old"), full)
    assert done.rollout is not None
    assert done.rollout.is_open
    assert done.create == {"new": 1}


# --- deleting -------------------------------------------------------------------------------------


def test_deleting_drains_every_revision_and_creates_nothing() -> None:
    done = taken(
        declared(3, deleting=True, phase=D.DELETING),
        replicas(P.READY),
        replicas(P.REQUESTED, of="old"),
    )
    assert (created(done), done.drain) == (0, ("new-ready-0", "old-requested-0"))
    assert done.phase is D.DELETING
    assert done.hopeless == "the deployment is being deleted"


def test_deleted_comes_only_when_the_last_process_is_gone() -> None:
    gone = [*replicas(P.TERMINATED), failed()]
    deleting = declared(deleting=True, phase=D.DELETING)
    assert taken(deleting, gone, replicas(P.DRAINING)).phase is D.DELETING
    assert taken(deleting, gone).phase is D.DELETED


# --- whatever is observed -------------------------------------------------------------------------

facts = st.builds(
    ReplicaFact,
    id=st.uuids().map(str),
    revision_id=st.sampled_from(["old", "older", "new"]),
    phase=st.sampled_from(list(P)),
    in_flight=st.integers(0, 5),
    refused=st.booleans(),
    ready_for_s=st.floats(0, 120),
    failed_ago_s=st.none() | st.floats(0, 120),
    reason=st.none() | st.just("Crashed"),
    message=st.none() | st.just("boom"),
    forgiven=st.booleans(),
)
rollouts = st.builds(
    lambda strategy, phase, fraction, requested: RolloutFact(
        "old",
        "new",
        strategy,
        BAKED[strategy],
        phase=phase,
        step=int(fraction * (len(BAKED[strategy]) + 1)),
        requested=requested,
        reason="Aborted",
        message="it was asked for",
    ),
    strategy=st.sampled_from(list(Strategy)),
    phase=st.sampled_from(sorted(OPEN)),
    fraction=st.floats(0, 0.99),
    requested=st.sampled_from([None, "promote", "abort"]),
)
BAKED = {
    strategy: tuple(replace(stage, bake_s=3.0) for stage in stages(RolloutSpec(strategy=strategy)))
    for strategy in Strategy
}
deployments = st.builds(
    DeploymentFact,
    phase=st.sampled_from([phase for phase in D if phase not in (D.DELETING, D.DELETED)]),
    revision_id=st.just("new"),
    serving_revision_id=st.just("old"),
    deleting=st.just(value=False),
    desired=st.integers(0, 5),
    room=st.builds(room, st.integers(0, 8)),
    rollout=rollouts,
    watched=st.builds(
        Watched,
        baked_s=st.floats(0, 10),
        compared=st.integers(0, 50),
        fault=st.none() | st.just(("ErrorRate", "it fails")),
    ),
)


@given(deployments, st.lists(facts, max_size=8))
def test_whatever_is_observed_the_step_is_a_sound_one(
    deployment: DeploymentFact, observed: list[ReplicaFact]
) -> None:
    done = step(deployment, observed, BACKOFF)
    check_transition(DEPLOYMENT, deployment.phase, done.phase)
    assert deployment.rollout and done.rollout and done.message
    check_transition(ROLLOUT, deployment.rollout.phase, done.rollout.phase)
    live = [f for f in observed if f.phase in LIVE]
    assert set(done.drain) <= {f.id for f in live}
    assert created(done) <= max(0, deployment.room.free_bytes // 10)
    for key, number in done.create.items():
        own = [f for f in live if f.revision_id == key]
        assert number + len(own) <= done.rollout.wanted[key]
        assert not any(f.id in done.drain for f in own), "creates what it drains"
    ready = {f.revision_id for f in observed if f.phase is P.READY}
    assert sum(done.weights.values()) == pytest.approx(1.0)
    assert all(done.weights[key] >= 0 for key in ("old", "new"))
    if ready & {"old", "new"}:
        assert all(key in ready for key, share in done.weights.items() if share)


@given(deployments, st.lists(facts, max_size=8))
def test_the_former_revision_is_whole_until_the_end_while_there_is_room(
    deployment: DeploymentFact, observed: list[ReplicaFact]
) -> None:
    rollout = deployment.rollout
    assert rollout
    if rollout.strategy is Strategy.RECREATE:
        return
    done = step(replace(deployment, room=room()), observed, BACKOFF)
    assert done.rollout
    if done.rollout.phase is RolloutPhase.PROMOTED:
        ready = [f for f in observed if f.revision_id == "new" and f.phase is P.READY]
        assert len(ready) >= deployment.desired
        return
    former = [f for f in observed if f.revision_id == "old" and f.phase in LIVE]
    kept = [f for f in former if f.id not in done.drain]
    assert len(kept) >= min(len(former), max(deployment.desired, 0))


@given(deployments, st.lists(facts, max_size=8))
def test_whatever_is_observed_a_deployment_being_deleted_only_shrinks(
    deployment: DeploymentFact, observed: list[ReplicaFact]
) -> None:
    done = step(replace(deployment, deleting=True, phase=D.DELETING), observed, BACKOFF)
    check_transition(DEPLOYMENT, D.DELETING, done.phase)
    running = [f for f in observed if f.phase in LIVE or f.phase is P.DRAINING]
    assert created(done) == 0
    assert (done.phase is D.DELETED) == (not running)


# --- a world in which replicas start, fail and drain ----------------------------------------------


@dataclass
class World:
    """Replicas of a deployment, moved on by one second at a time."""

    deployment: DeploymentFact
    replicas: list[ReplicaFact] = field(default_factory=list)
    failing: list[bool] = field(default_factory=list)
    """How the next starts go; those after them succeed."""
    space: Room = field(default_factory=room)
    """What there would be without any replica."""

    clock_s: float = 0.0
    entered: tuple[object, float] = (None, 0.0)

    def pass_a_second(self) -> Step:
        self.clock_s += 1.0
        done = step(self._fact(), self.replicas, BACKOFF)
        check_transition(DEPLOYMENT, self.deployment.phase, done.phase)
        self._follow(done)
        self.replicas = [self._moved(fact, done) for fact in self.replicas]
        for key, number in done.create.items():
            for _ in range(number):
                self.replicas.append(ReplicaFact(f"r{len(self.replicas)}", key, P.REQUESTED))
        return done

    def _fact(self) -> DeploymentFact:
        """The deployment with the room that is left and the time that its stage was watched."""
        unfinished = [f for f in self.replicas if f.phase not in (P.TERMINATED, P.FAILED)]
        left = replace(self.space, free_bytes=self.space.free_bytes - 10 * len(unfinished))
        rollout = self.deployment.rollout
        at = (rollout.phase, rollout.step) if rollout else None
        if at != self.entered[0]:
            self.entered = (at, self.clock_s)
        watched = Watched(baked_s=self.clock_s - self.entered[1], compared=1000)
        return replace(self.deployment, room=left, watched=watched)

    def _follow(self, done: Step) -> None:
        rollout, now = self.deployment.rollout, done.rollout
        if rollout and now:
            check_transition(ROLLOUT, rollout.phase, now.phase)
            rollout = replace(rollout, phase=now.phase, step=now.step) if now.is_open else None
        self.deployment = replace(
            self.deployment,
            phase=done.phase,
            serving_revision_id=done.serving_revision_id,
            rollout=rollout,
        )

    def _moved(self, fact: ReplicaFact, done: Step) -> ReplicaFact:
        if fact.id in done.drain:
            return replace(fact, phase=P.DRAINING)
        match fact.phase:
            case P.REQUESTED:
                return replace(fact, phase=P.LOADING)
            case P.LOADING if self.failing and self.failing.pop(0):
                return replace(fact, phase=P.FAILED, failed_ago_s=0.0)
            case P.LOADING:
                return replace(fact, phase=P.READY)
            case P.DRAINING:
                return replace(fact, phase=P.TERMINATED)
            case P.FAILED:
                return replace(fact, failed_ago_s=(fact.failed_ago_s or 0.0) + 1.0)
            case _:
                return fact


starting_points = st.lists(
    st.builds(
        ReplicaFact,
        id=st.uuids().map(str),
        revision_id=st.sampled_from(["old", "new"]),
        phase=st.sampled_from([P.REQUESTED, P.LOADING, P.READY, P.DRAINING, P.TERMINATED]),
    ),
    max_size=6,
)


@given(deployments, starting_points, st.lists(st.booleans(), max_size=5), st.integers(11, 20))
def test_from_any_point_and_through_failures_every_rollout_ends(
    deployment: DeploymentFact,
    observed: list[ReplicaFact],
    failing: list[bool],
    space: int,
) -> None:
    world = World(deployment, observed, failing, room(space))
    for _ in range(150):
        done = world.pass_a_second()
    assert world.deployment.rollout is None
    live = [fact for fact in world.replicas if fact.phase in LIVE]
    assert [fact.revision_id for fact in live] == [done.serving_revision_id] * deployment.desired
    assert all(fact.phase is P.READY for fact in live)
    assert (created(done), done.drain) == (0, ())
    if deployment.desired:
        assert done.phase is D.READY


@given(deployments, starting_points, st.integers(1, 20))
def test_with_room_for_one_more_no_rollout_but_recreate_is_ever_without_a_ready_replica(
    deployment: DeploymentFact, observed: list[ReplicaFact], space: int
) -> None:
    rollout = deployment.rollout
    assert rollout
    if rollout.strategy is Strategy.RECREATE:
        return
    for_one_more = max(space, 2 + len(observed))
    world = World(
        replace(deployment, desired=max(1, deployment.desired)), observed, [], room(for_one_more)
    )
    was_ready = False
    for _ in range(40):
        world.pass_a_second()
        ready = any(fact.phase is P.READY for fact in world.replicas)
        assert ready or not was_ready
        was_ready = ready


@given(deployments, starting_points)
def test_from_any_point_a_deployment_being_deleted_is_gone_in_the_end(
    deployment: DeploymentFact, observed: list[ReplicaFact]
) -> None:
    world = World(replace(deployment, deleting=True, phase=D.DELETING), observed)
    for _ in range(6):
        done = world.pass_a_second()
        if done.phase is D.DELETED:
            break
    assert done.phase is D.DELETED


def test_a_deployment_that_crashed_on_its_way_to_zero_is_idle_not_degraded() -> None:
    done = taken(declared(0), [failed()])
    assert (done.phase, created(done)) == (D.IDLE, 0)
