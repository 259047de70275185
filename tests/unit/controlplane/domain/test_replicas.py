"""What a replica's row becomes, for every phase and everything that can be seen of its process."""

from __future__ import annotations

from itertools import product

import pytest

from tidegate.protocol.resources import ReplicaPhase
from tidegate_controlplane.domain.replicas import (
    Change,
    Exited,
    Missing,
    NoCapacity,
    Observation,
    Running,
    next_phase,
)
from tidegate_controlplane.domain.states import REPLICA, check_transition

P = ReplicaPhase
SAID = (P.STARTING, P.LOADING, P.READY, P.DRAINING)


def running(phase: ReplicaPhase, *, healthy: bool = True, overdue: bool = False) -> Running:
    return Running(phase, pid=7, process_start=11, port=80, healthy=healthy, overdue=overdue)


CRASH = Exited(1, "Crashed", "exited with status 1")
REFUSAL = Exited(3, "Pickled", "its weights are pickled", refused=True)
SEEN: list[Observation] = [
    Missing(),
    NoCapacity("it needs 2 GPUs, and no node has more than 1"),
    CRASH,
    REFUSAL,
    Exited(0, "Ended", "it ended"),
    *(
        running(phase, healthy=healthy, overdue=overdue)
        for phase, healthy, overdue in product(SAID, (True, False), (True, False))
    ),
]


@pytest.mark.parametrize("phase", list(P))
@pytest.mark.parametrize("seen", SEEN, ids=repr)
def test_each_change_is_one_that_the_replica_table_allows(
    phase: ReplicaPhase, seen: Observation
) -> None:
    change = next_phase(phase, seen)
    if change is not None:
        assert change.phase is not phase
        check_transition(REPLICA, phase, change.phase)


@pytest.mark.parametrize("seen", SEEN, ids=repr)
def test_once_the_observation_is_written_the_same_one_leads_on_without_end(
    seen: Observation,
) -> None:
    for phase in P:
        steps = 0
        while change := next_phase(phase, seen):
            phase, steps = change.phase, steps + 1
        assert steps <= 3


@pytest.mark.parametrize("phase", [P.TERMINATED, P.FAILED])
@pytest.mark.parametrize("seen", SEEN, ids=repr)
def test_a_final_row_never_changes(phase: ReplicaPhase, seen: Observation) -> None:
    assert next_phase(phase, seen) is None


def test_a_requested_replica_without_a_process_waits_to_be_started() -> None:
    assert next_phase(P.REQUESTED, Missing()) is None


@pytest.mark.parametrize("phase", [P.STARTING, P.LOADING, P.READY])
def test_a_replica_whose_process_is_gone_is_lost(phase: ReplicaPhase) -> None:
    assert next_phase(phase, Missing()) == Change(P.FAILED, "Lost", "the process is gone")


@pytest.mark.parametrize("seen", [Missing(), CRASH, REFUSAL])
def test_a_draining_replica_has_ended_well_however_its_process_went(seen: Observation) -> None:
    change = next_phase(P.DRAINING, seen)
    assert change is not None
    assert (change.phase, change.reason, change.refused) == (P.TERMINATED, "Drained", False)


@pytest.mark.parametrize("phase", [P.REQUESTED, P.STARTING, P.LOADING, P.READY])
def test_an_exit_is_a_failure_with_the_reason_of_the_process(phase: ReplicaPhase) -> None:
    assert next_phase(phase, CRASH) == Change(P.FAILED, "Crashed", "exited with status 1")
    assert next_phase(phase, REFUSAL) == Change(
        P.FAILED, "Pickled", "its weights are pickled", refused=True
    )


def test_a_replica_goes_through_starting_and_loading_to_ready() -> None:
    assert next_phase(P.REQUESTED, running(P.READY)) == Change(P.STARTING)
    assert next_phase(P.STARTING, running(P.STARTING)) is None
    assert next_phase(P.STARTING, running(P.LOADING)) == Change(P.LOADING)
    assert next_phase(P.LOADING, running(P.READY)) == Change(P.READY)
    assert next_phase(P.READY, running(P.READY)) is None


@pytest.mark.parametrize("said", [P.STARTING, P.LOADING])
def test_a_replica_that_is_not_ready_in_time_has_failed(said: ReplicaPhase) -> None:
    change = next_phase(P.STARTING, running(said, overdue=True))
    assert change is not None
    assert (change.phase, change.reason) == (P.FAILED, "StartTimeout")


def test_a_replica_that_says_ready_and_never_answers_has_failed_when_it_is_overdue() -> None:
    assert next_phase(P.LOADING, running(P.READY, healthy=False)) is None
    change = next_phase(P.LOADING, running(P.READY, healthy=False, overdue=True))
    assert change is not None
    assert change.reason == "StartTimeout"


def test_a_replica_that_has_been_ready_is_never_overdue() -> None:
    assert next_phase(P.READY, running(P.READY, overdue=True)) is None
    assert next_phase(P.READY, running(P.LOADING, overdue=True)) is None


def test_a_ready_replica_that_fails_its_health_checks_has_failed() -> None:
    change = next_phase(P.READY, running(P.READY, healthy=False))
    assert change is not None
    assert (change.phase, change.reason) == (P.FAILED, "Unhealthy")


@pytest.mark.parametrize("phase", [P.STARTING, P.LOADING, P.READY])
def test_a_replica_that_drains_unasked_takes_no_new_work(phase: ReplicaPhase) -> None:
    change = next_phase(phase, running(P.DRAINING))
    assert change is not None
    assert change.phase is P.DRAINING


def test_a_draining_replica_is_left_alone_while_it_runs() -> None:
    for said, healthy, overdue in product(SAID, (True, False), (True, False)):
        assert next_phase(P.DRAINING, running(said, healthy=healthy, overdue=overdue)) is None


def test_a_replica_without_capacity_has_failed_for_that_reason_alone() -> None:
    seen = NoCapacity("it needs 2 GPUs, and no node has more than 1")
    for phase in (P.REQUESTED, P.STARTING):
        assert next_phase(phase, seen) == Change(P.FAILED, "NoCapacity", seen.message)
    assert next_phase(P.DRAINING, seen) == Change(
        P.TERMINATED, "Drained", "it never had capacity to start"
    )
