"""Rows of the autoscaler's decisions, the newest of each deployment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete
from sqlmodel import Session, col, select

from tidegate_controlplane.domain import autoscale
from tidegate_controlplane.store.tables import Decision

KEPT = 1000
"""Decisions kept for one deployment."""


def add_decision(
    session: Session, deployment_id: str, made: autoscale.Decision, now: datetime
) -> None:
    """Record a decision in the transaction that acts on it, and drop what is too old."""
    session.add(
        Decision(
            deployment_id=deployment_id,
            desired=made.desired,
            called_for=made.called_for,
            term=made.term.value,
            sentence=made.sentence,
            inputs=made.inputs,
            time=now,
        )
    )
    session.flush()
    oldest = (
        select(Decision.seq)
        .where(Decision.deployment_id == deployment_id)
        .order_by(col(Decision.seq).desc())
        .offset(KEPT)
        .limit(1)
    )
    seq = session.exec(oldest).first()
    if seq is not None:
        session.execute(
            delete(Decision).where(
                col(Decision.deployment_id) == deployment_id, col(Decision.seq) <= seq
            )
        )


def decisions_page(
    session: Session, deployment_id: str, after: int, limit: int
) -> Sequence[Decision]:
    """At most `limit` rows after the sequence number `after`, oldest first."""
    return session.exec(
        select(Decision)
        .where(Decision.deployment_id == deployment_id, col(Decision.seq) > after)
        .order_by(col(Decision.seq))
        .limit(limit)
    ).all()
