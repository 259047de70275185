"""Events into the outbox, in the transaction in which they happen.

Each function here is called where a row changes its state, by whoever changes it. What is rolled
back was never announced, and what is committed is announced whatever dies next (DESIGN §8, P17).

A project without webhooks costs one indexed query, which finds nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Row, bindparam, insert, select
from sqlmodel import Session, SQLModel, col

from tidegate.protocol.resources import DeploymentPhase, RolloutPhase
from tidegate.protocol.webhooks import DeliveryState, WebhookEvent
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.tables import Batch, Deployment, Rollout, Webhook

_ASLEEP = frozenset({DeploymentPhase.IDLE, DeploymentPhase.WAKING})
_TOLD_PHASES = {
    DeploymentPhase.READY: WebhookEvent.DEPLOYMENT_READY,
    DeploymentPhase.DEGRADED: WebhookEvent.DEPLOYMENT_DEGRADED,
    DeploymentPhase.FAILED: WebhookEvent.DEPLOYMENT_FAILED,
}
_LISTENS = (col(Webhook.enabled).is_(True), col(Webhook.deleted_at).is_(None))

_I, _W = (SQLModel.metadata.tables[name] for name in ("invocation", "webhook"))
_INSERT = insert(SQLModel.metadata.tables["webhook_delivery"])
_ENDED_AND_LISTENERS = (
    select(
        _W.c.id.label("listener"),
        _W.c.events,
        _I.c.webhook_id.label("named"),
        *(
            _I.c[name]
            for name in (
                "id",
                "status",
                "model",
                "endpoint",
                "attempt",
                "prompt_tokens",
                "completion_tokens",
                "error",
                "created_at",
                "started_at",
                "finished_at",
            )
        ),
    )
    .join(_W, _W.c.project_id == _I.c.project_id)
    .where(
        _I.c.id.in_(bindparam("ids", expanding=True)),
        _I.c.batch_id.is_(None),
        _W.c.enabled,
        _W.c.deleted_at.is_(None),
    )
    .order_by(_I.c.id)
)
"""Asked at each ending, so it is made once, and of tables: of entities it would cost several times
as much."""


# --- what happened --------------------------------------------------------------------------------


def invocations_ended(session: Session, ids: Collection[str]) -> None:
    """These are final now. The lines of a batch are told of by their batch alone."""
    if not ids:
        return
    session.flush()
    found = session.connection().execute(_ENDED_AND_LISTENERS, {"ids": list(ids)})
    for _, group in groupby(found, lambda row: row.id):
        told = list(group)
        kind = f"invocation.{told[0].status}"
        listeners = [
            row.listener for row in told if kind in row.events or row.listener == row.named
        ]
        announce(session, listeners, kind, told[0].finished_at, _invocation_data(told[0]))


def batch_ended(session: Session, batch_id: str) -> None:
    """It is final now."""
    batch = session.get_one(Batch, batch_id, populate_existing=True)
    kind = f"batch.{batch.status}"
    listeners = listening(session, batch.project_id, kind, batch.webhook_id)
    if listeners:
        ended_at: datetime = getattr(batch, f"{batch.status}_at")
        announce(session, listeners, kind, ended_at, _batch_data(batch, ended_at))


def deployment_changed(session: Session, row: Deployment, before: str) -> None:
    """It was in the phase `before`. Waking up is no news: it happens all day."""
    phase = DeploymentPhase(row.phase)
    kind = _TOLD_PHASES.get(phase)
    if kind is None or phase == before or (phase is DeploymentPhase.READY and before in _ASLEEP):
        return
    data = {"id": row.id, "name": row.name, "phase": phase.value, "generation": row.generation}
    listeners = listening(session, row.project_id, kind)
    announce(session, listeners, kind, row.updated_at, data)


def rollout_changed(session: Session, row: Rollout, before: str) -> None:
    """It was in the phase `before`."""
    if row.phase != RolloutPhase.ROLLED_BACK or row.phase == before:
        return
    kind = WebhookEvent.ROLLOUT_ROLLED_BACK
    data = {
        "id": row.id,
        "deployment": session.get_one(Deployment, row.deployment_id).name,
        "reason": row.reason,
        "from_revision": row.from_revision_id,
        "to_revision": row.to_revision_id,
    }
    announce(session, listening(session, row.project_id, kind), kind, row.updated_at, data)


def webhook_disabled(session: Session, row: Webhook, now: datetime) -> None:
    """It was given up; the project's other webhooks may tell somebody."""
    kind = WebhookEvent.WEBHOOK_DISABLED
    data = {"id": row.id, "reason": row.disabled_reason}
    announce(session, listening(session, row.project_id, kind), kind, now, data)


# --- who is told ----------------------------------------------------------------------------------


def listening(session: Session, project_id: str, kind: str, named: str | None = None) -> list[str]:
    """The webhooks that want events of this `kind`, and the one that was `named` for it."""
    columns: list[Any] = [col(Webhook.id), col(Webhook.events)]
    query = select(*columns).where(col(Webhook.project_id) == project_id, *_LISTENS)
    return [
        found.id for found in session.execute(query) if kind in found.events or found.id == named
    ]


def announce(
    session: Session,
    listeners: Collection[str],
    kind: str,
    happened_at: datetime,
    data: Mapping[str, Any],
) -> list[str]:
    """One delivery for each listener, due at once; returns their ids."""
    event_id = new_id("evt")
    deliveries: list[dict[str, Any]] = [
        {
            "id": new_id("whd"),
            "webhook_id": listener,
            "event_id": event_id,
            "type": str(kind),
            "data": dict(data),
            "status": DeliveryState.PENDING.value,
            "number": 0,
            "tries": [],
            "lease_epoch": 0,
            "created_at": happened_at,
            "due_at": happened_at,
        }
        for listener in listeners
    ]
    if deliveries:
        session.flush()
        session.connection().execute(_INSERT, deliveries)
    return [each["id"] for each in deliveries]


# --- what they are told ---------------------------------------------------------------------------


def _invocation_data(found: Row[Any]) -> dict[str, Any]:
    return {
        "id": found.id,
        "status": found.status,
        "model": found.model,
        "endpoint": found.endpoint,
        "attempt": found.attempt,
        "prompt_tokens": found.prompt_tokens,
        "completion_tokens": found.completion_tokens,
        "error_code": (found.error or {}).get("code"),
        "created_at": _unix(found.created_at),
        "started_at": _unix(found.started_at),
        "finished_at": _unix(found.finished_at),
    }


def _batch_data(batch: Batch, ended_at: datetime) -> dict[str, Any]:
    return {
        "id": batch.id,
        "status": batch.status,
        "model": batch.model,
        "endpoint": batch.endpoint,
        "total": batch.total,
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": _unix(batch.created_at),
        "finished_at": _unix(ended_at),
    }


def _unix(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
