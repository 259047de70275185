"""Rows of webhooks: where a project wants to be told."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, func, update
from sqlmodel import Session, col, select

from tidegate_controlplane.store import outbox
from tidegate_controlplane.store.tables import Webhook, WebhookDelivery


def insert(session: Session, row: Webhook) -> None:
    session.add(row)


def get(session: Session, project_id: str, webhook_id: str) -> Webhook | None:
    """One that is not deleted."""
    row = session.get(Webhook, webhook_id)
    if row is None or row.project_id != project_id or row.deleted_at is not None:
        return None
    return row


def page(session: Session, project_id: str, after: str | None, limit: int) -> list[Webhook]:
    """At most `limit`, oldest first, those after the id `after`."""
    query = select(Webhook).where(
        Webhook.project_id == project_id, col(Webhook.deleted_at).is_(None)
    )
    if after is not None:
        query = query.where(Webhook.id > after)
    return list(session.exec(query.order_by(col(Webhook.id)).limit(limit)))


def number(session: Session, project_id: str) -> int:
    """How many the project has."""
    query = select(func.count()).where(
        Webhook.project_id == project_id, col(Webhook.deleted_at).is_(None)
    )
    return session.exec(query).one()


def note_success(session: Session, webhook_id: str) -> None:
    """A try succeeded: it fails no more."""
    session.execute(
        update(Webhook)
        .where(col(Webhook.id) == webhook_id, col(Webhook.failing_since).is_not(None))
        .values(failing_since=None)
        .execution_options(synchronize_session=False)
    )


def note_failure(session: Session, webhook_id: str, now: datetime) -> None:
    """A try failed; it has failed since the first of these in a row."""
    session.execute(
        update(Webhook)
        .where(col(Webhook.id) == webhook_id, col(Webhook.failing_since).is_(None))
        .values(failing_since=now)
        .execution_options(synchronize_session=False)
    )


def disable(session: Session, webhook_id: str, reason: str, now: datetime) -> bool:
    """Give it up and tell the others; False when it was disabled or deleted before."""
    row = session.get(Webhook, webhook_id, populate_existing=True)
    if row is None or not row.enabled or row.deleted_at is not None:
        return False
    row.enabled, row.disabled_reason, row.updated_at = False, reason, now
    session.add(row)
    session.flush()
    outbox.webhook_disabled(session, row, now)
    return True


def forget_deleted(session: Session) -> None:
    """Remove the rows of deleted webhooks that no delivery names any more."""
    left = select(WebhookDelivery.id).where(WebhookDelivery.webhook_id == col(Webhook.id))
    session.execute(
        delete(Webhook)
        .where(col(Webhook.deleted_at).is_not(None), ~left.exists())
        .execution_options(synchronize_session=False)
    )
