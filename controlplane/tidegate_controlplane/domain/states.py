"""What each object may become: one table of allowed transitions per object (DESIGN §2)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from tidegate.protocol.resources import DeploymentPhase, ReplicaPhase, RolloutPhase
from tidegate.protocol.webhooks import DeliveryState
from tidegate.protocol.work import BatchStatus, InvocationState

S = TypeVar("S", bound=StrEnum)
Transitions = Mapping[S, frozenset[S]]

D, R, I, B = DeploymentPhase, ReplicaPhase, InvocationState, BatchStatus  # noqa: E741
O = RolloutPhase  # noqa: E741
W = DeliveryState

# What a living deployment's phase may follow: the phase is read off the replicas at each step, and
# between two steps anything may have happened to them, so each of these may follow each other.
_OBSERVED = frozenset(
    {D.PROVISIONING, D.READY, D.UPDATING, D.IDLE, D.WAKING, D.DEGRADED, D.PAUSED, D.FAILED}
)

DEPLOYMENT: Transitions[DeploymentPhase] = {
    D.PENDING: _OBSERVED | {D.PLANNING, D.DELETING},
    D.PLANNING: _OBSERVED | {D.DELETING},
    **{phase: _OBSERVED - {phase} | {D.PLANNING, D.DELETING} for phase in _OBSERVED},
    D.DELETING: frozenset({D.DELETED}),
    D.DELETED: frozenset(),
}

REPLICA: Transitions[ReplicaPhase] = {
    R.REQUESTED: frozenset({R.STARTING, R.TERMINATED, R.FAILED}),
    R.STARTING: frozenset({R.LOADING, R.READY, R.DRAINING, R.TERMINATED, R.FAILED}),
    R.LOADING: frozenset({R.READY, R.DRAINING, R.TERMINATED, R.FAILED}),
    R.READY: frozenset({R.DRAINING, R.TERMINATED, R.FAILED}),
    R.DRAINING: frozenset({R.TERMINATED, R.FAILED}),
    R.TERMINATED: frozenset(),
    R.FAILED: frozenset(),
}

# `rolled_back` follows at once when the deployment is declared anew or deleted meanwhile.
ROLLOUT: Transitions[RolloutPhase] = {
    O.PREFLIGHT: frozenset({O.SHIFTING, O.PROMOTED, O.ROLLING_BACK, O.ROLLED_BACK}),
    O.SHIFTING: frozenset({O.BAKING, O.PROMOTED, O.ROLLING_BACK, O.ROLLED_BACK}),
    O.BAKING: frozenset({O.SHIFTING, O.PROMOTED, O.ROLLING_BACK, O.ROLLED_BACK}),
    O.ROLLING_BACK: frozenset({O.ROLLED_BACK}),
    O.PROMOTED: frozenset(),
    O.ROLLED_BACK: frozenset(),
}

INVOCATION: Transitions[InvocationState] = {
    I.QUEUED: frozenset({I.RUNNING, I.CANCELED, I.EXPIRED, I.FAILED}),
    I.RUNNING: frozenset({I.QUEUED, I.SUCCEEDED, I.FAILED, I.CANCELED, I.EXPIRED, I.DEAD}),
    I.SUCCEEDED: frozenset(),
    I.FAILED: frozenset(),
    I.CANCELED: frozenset(),
    I.EXPIRED: frozenset(),
    I.DEAD: frozenset(),
}

# After `validating` a batch fails only when its tables cannot be written beside its answers.
BATCH: Transitions[BatchStatus] = {
    B.VALIDATING: frozenset({B.IN_PROGRESS, B.FAILED, B.CANCELLING}),
    B.IN_PROGRESS: frozenset({B.FINALIZING, B.CANCELLING, B.EXPIRED, B.FAILED}),
    B.FINALIZING: frozenset({B.COMPLETED, B.CANCELLING, B.FAILED}),
    B.CANCELLING: frozenset({B.CANCELLED, B.FAILED}),
    B.COMPLETED: frozenset(),
    B.FAILED: frozenset(),
    B.EXPIRED: frozenset(),
    B.CANCELLED: frozenset(),
}

# What has ended is sent again when it is replayed.
DELIVERY: Transitions[DeliveryState] = {
    W.PENDING: frozenset({W.SENDING, W.DEAD}),
    W.SENDING: frozenset({W.PENDING, W.DELIVERED, W.DEAD}),
    W.DELIVERED: frozenset({W.PENDING}),
    W.DEAD: frozenset({W.PENDING}),
}


class ImpossibleTransition(ValueError):
    """A change of state that its table does not allow: a fault in the program, never of a user."""


def check_transition(table: Transitions[S], before: S, after: S) -> None:
    """Raise ImpossibleTransition unless `table` allows it; staying where one is, is no change."""
    if before is not after and after not in table[before]:
        raise ImpossibleTransition(f"{type(before).__name__}: {before} → {after} is not allowed")


def is_final(table: Transitions[S], state: S) -> bool:
    """Whether nothing follows."""
    return not table[state]
