"""Rows of the outbox: claimed, tried, and ended.

As in `store.leases`, a claim raises the epoch, and a row is changed only by whoever holds the
epoch that it has: what a try brings after its lease was taken back changes nothing.

`finished_at IS NULL` in a query selects the index that holds unfinished rows only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, or_, update
from sqlmodel import Session, col, select

from tidegate.protocol.webhooks import DeliveryState
from tidegate_controlplane.domain.states import DELIVERY, check_transition
from tidegate_controlplane.store.swap import rows_changed, swapped
from tidegate_controlplane.store.tables import Webhook, WebhookDelivery

BULK = 1000
"""Rows that one transaction changes at most, so that no writer waits long for another."""

PENDING, SENDING = DeliveryState.PENDING, DeliveryState.SENDING
D = WebhookDelivery


@dataclass(frozen=True)
class DeliveryLease:
    """The right to say what became of one try."""

    delivery_id: str
    epoch: int

    @classmethod
    def of(cls, row: WebhookDelivery) -> DeliveryLease:
        return cls(row.id, row.lease_epoch)


# --- reading --------------------------------------------------------------------------------------


def get(session: Session, webhook_id: str, delivery_id: str) -> WebhookDelivery | None:
    row = session.get(WebhookDelivery, delivery_id)
    return row if row is not None and row.webhook_id == webhook_id else None


def page(
    session: Session,
    webhook_id: str,
    *,
    after: str | None,
    limit: int,
    status: DeliveryState | None = None,
) -> list[WebhookDelivery]:
    """At most `limit`, newest first, those older than `after`."""
    query = select(D).where(D.webhook_id == webhook_id)
    if after is not None:
        query = query.where(D.id < after)
    if status is not None:
        query = query.where(D.status == status.value)
    return list(session.exec(query.order_by(col(D.id).desc()).limit(limit)))


def waiting(session: Session, now: datetime) -> list[str]:
    """The enabled webhooks that something is due for.

    A skip scan: one index seek for each webhook with work, however long its backlog is.
    """
    found: list[str] = []
    last: str | None = ""
    while last is not None:
        unfinished = [col(D.finished_at).is_(None), col(D.webhook_id) > last]
        query = select(D.webhook_id).where(*unfinished).order_by(col(D.webhook_id)).limit(1)
        last = session.exec(query).first()
        if last is not None and _is_waiting(session, last, now):
            found.append(last)
    return found


def leased(session: Session) -> list[DeliveryLease]:
    """Every lease there is."""
    rows = session.exec(select(D.id, D.lease_epoch).where(col(D.lease_owner).is_not(None)))
    return [DeliveryLease(delivery_id, epoch) for delivery_id, epoch in rows]


# --- leases ---------------------------------------------------------------------------------------


def claim(
    session: Session, owner: str, now: datetime, shares: Mapping[str, int]
) -> list[tuple[WebhookDelivery, Webhook]]:
    """Lease up to `shares[webhook]` due deliveries of each webhook, the longest due first."""
    claimed: list[tuple[WebhookDelivery, Webhook]] = []
    for webhook_id, share in shares.items():
        webhook = session.get(Webhook, webhook_id)
        if webhook is None or not webhook.enabled or webhook.deleted_at is not None:
            continue
        query = select(D).where(*_due(webhook_id, now)).order_by(col(D.due_at)).limit(share)
        for row in session.exec(query):
            lease = DeliveryLease.of(row)
            values = {"lease_owner": owner, "lease_epoch": row.lease_epoch + 1}
            if _change(session, lease, PENDING, SENDING, **values, number=row.number + 1):
                session.refresh(row)
                claimed.append((row, webhook))
    return claimed


def end(
    session: Session,
    lease: DeliveryLease,
    after: DeliveryState,
    now: datetime,
    tries: list[dict[str, Any]],
) -> bool:
    """No further try; False when the lease was lost, and then nothing has changed."""
    return _change(session, lease, SENDING, after, lease_owner=None, finished_at=now, tries=tries)


def again(
    session: Session, lease: DeliveryLease, due_at: datetime, tries: list[dict[str, Any]]
) -> bool:
    """Another try, not before `due_at`; False when the lease was lost."""
    return _change(session, lease, SENDING, PENDING, lease_owner=None, due_at=due_at, tries=tries)


def give_back(session: Session, leases: Collection[DeliveryLease], *, counted: bool) -> None:
    """Due again at once; `counted` says whether the try that was begun counts as one."""
    values: dict[str, Any] = {"lease_owner": None}
    if not counted:
        values["number"] = D.number - 1
    for lease in leases:
        _change(session, lease, SENDING, PENDING, **values)


# --- ended ones -----------------------------------------------------------------------------------


def replay(session: Session, row: WebhookDelivery, now: datetime) -> bool:
    """Due at once, with all of its tries anew; False when it has not ended."""
    before = DeliveryState(row.status)
    if not before.is_final:
        return False
    return _change(
        session, DeliveryLease.of(row), before, PENDING, due_at=now, finished_at=None, number=0
    )


def replay_range(
    session: Session,
    webhook_id: str,
    since: datetime,
    until: datetime,
    now: datetime,
    *,
    states: Collection[DeliveryState],
    after: str,
) -> list[str]:
    """Replay what happened in the range and ended so; the ids after `after`, at most BULK."""
    query = (
        select(D)
        .where(
            D.webhook_id == webhook_id,
            D.id > after,
            col(D.status).in_([state.value for state in states]),
            D.created_at >= since,
            D.created_at < until,
        )
        .order_by(col(D.id))
        .limit(BULK)
    )
    return [row.id for row in session.exec(query) if replay(session, row, now)]


def end_pending(session: Session, webhook_id: str, now: datetime) -> None:
    """Give up all that waits for a webhook."""
    check_transition(DELIVERY, PENDING, DeliveryState.DEAD)
    session.execute(
        update(D)
        .where(
            col(D.finished_at).is_(None),
            col(D.webhook_id) == webhook_id,
            col(D.status) == PENDING.value,
        )
        .values(status=DeliveryState.DEAD.value, finished_at=now)
        .execution_options(synchronize_session=False)
    )


def sweep(session: Session, before: datetime) -> int:
    """Delete what ended before, and what has waited since before then for a webhook that is
    disabled; at most BULK. Returns how many."""
    idle = select(Webhook.id).where(~col(Webhook.enabled))
    parked = and_(
        col(D.finished_at).is_(None),
        col(D.status) == PENDING.value,
        col(D.created_at) < before,
        col(D.webhook_id).in_(idle),
    )
    old = select(D.id).where(or_(col(D.finished_at) < before, parked)).limit(BULK)
    return rows_changed(session, delete(D).where(col(D.id).in_(old)))


# --- inside ---------------------------------------------------------------------------------------


def _is_waiting(session: Session, webhook_id: str, now: datetime) -> bool:
    query = (
        select(D.id)
        .join(Webhook, col(Webhook.id) == col(D.webhook_id))
        .where(*_due(webhook_id, now), col(Webhook.enabled), col(Webhook.deleted_at).is_(None))
    )
    return session.exec(query.limit(1)).first() is not None


def _due(webhook_id: str, now: datetime) -> list[ColumnElement[bool]]:
    return [
        col(D.finished_at).is_(None),
        col(D.webhook_id) == webhook_id,
        col(D.status) == PENDING.value,
        col(D.due_at) <= now,
    ]


def _change(
    session: Session,
    lease: DeliveryLease,
    before: DeliveryState,
    after: DeliveryState,
    **values: Any,
) -> bool:
    check_transition(DELIVERY, before, after)
    as_seen = (
        col(D.id) == lease.delivery_id,
        col(D.lease_epoch) == lease.epoch,
        col(D.status) == before.value,
    )
    return swapped(session, update(D).where(*as_seen).values(status=after.value, **values))
