"""Every pair of states of every object, written out a second time."""

from __future__ import annotations

from enum import StrEnum

import pytest

from tidegate.protocol.resources import DeploymentPhase, ReplicaPhase, RolloutPhase
from tidegate.protocol.webhooks import DeliveryState
from tidegate.protocol.work import BatchStatus, InvocationState
from tidegate_controlplane.domain.states import (
    BATCH,
    DELIVERY,
    DEPLOYMENT,
    INVOCATION,
    REPLICA,
    ROLLOUT,
    ImpossibleTransition,
    Transitions,
    check_transition,
    is_final,
)

ALIVE = "planning provisioning ready updating idle waking degraded paused failed"

EXPECTED: list[tuple[Transitions[StrEnum], type[StrEnum], dict[str, str]]] = [
    (
        DELIVERY,
        DeliveryState,
        {
            "pending": "sending dead",
            "sending": "pending delivered dead",
            "delivered": "pending",
            "dead": "pending",
        },
    ),
    (
        DEPLOYMENT,
        DeploymentPhase,
        {
            "pending": f"{ALIVE} deleting",
            **dict.fromkeys(ALIVE.split(), f"{ALIVE} deleting"),
            "deleting": "deleted",
            "deleted": "",
        },
    ),
    (
        REPLICA,
        ReplicaPhase,
        {
            "requested": "starting terminated failed",
            "starting": "loading ready draining terminated failed",
            "loading": "ready draining terminated failed",
            "ready": "draining terminated failed",
            "draining": "terminated failed",
            "terminated": "",
            "failed": "",
        },
    ),
    (
        ROLLOUT,
        RolloutPhase,
        {
            "preflight": "shifting promoted rolling_back rolled_back",
            "shifting": "baking promoted rolling_back rolled_back",
            "baking": "shifting promoted rolling_back rolled_back",
            "rolling_back": "rolled_back",
            "promoted": "",
            "rolled_back": "",
        },
    ),
    (
        INVOCATION,
        InvocationState,
        {
            "queued": "running canceled expired failed",
            "running": "queued succeeded failed canceled expired dead",
            "succeeded": "",
            "failed": "queued",
            "canceled": "",
            "expired": "",
            "dead": "queued",
        },
    ),
    (
        BATCH,
        BatchStatus,
        {
            "validating": "in_progress failed cancelling",
            "in_progress": "finalizing cancelling expired failed",
            "finalizing": "completed cancelling failed",
            "cancelling": "cancelled failed",
            "completed": "",
            "failed": "",
            "expired": "",
            "cancelled": "",
        },
    ),
]
PAIRS = [
    pytest.param(
        table, before, after, after.value in allowed[before.value].split(), id=f"{before}-{after}"
    )
    for table, states, allowed in EXPECTED
    for before in states
    for after in states
    if before is not after
]


@pytest.mark.parametrize(("table", "before", "after", "allowed"), PAIRS)
def test_a_transition_is_allowed_exactly_when_its_table_says_so(
    table: Transitions[StrEnum], before: StrEnum, after: StrEnum, allowed: bool
) -> None:
    if allowed:
        check_transition(table, before, after)
    else:
        with pytest.raises(ImpossibleTransition, match=f"{before} → {after}"):
            check_transition(table, before, after)


@pytest.mark.parametrize(("table", "states", "allowed"), EXPECTED)
def test_staying_in_a_state_is_no_change_and_allowed_even_in_a_final_one(
    table: Transitions[StrEnum], states: type[StrEnum], allowed: dict[str, str]
) -> None:
    for state in states:
        check_transition(table, state, state)


@pytest.mark.parametrize(("table", "states", "allowed"), EXPECTED)
def test_a_state_is_final_when_nothing_follows_it(
    table: Transitions[StrEnum], states: type[StrEnum], allowed: dict[str, str]
) -> None:
    assert {s.value for s in states if is_final(table, s)} == {
        name for name, after in allowed.items() if not after
    }
    assert set(table) == set(states)
