"""What control planes that share a database tell each other, as rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import delete, func, update
from sqlmodel import Session, col, select

from tidegate_controlplane.domain.leadership import Claim
from tidegate_controlplane.store.leadership import ONLY, raise_published
from tidegate_controlplane.store.tables import (
    ControlPlane,
    Event,
    Invocation,
    Leader,
    Publication,
    SharedCounter,
)

T = TypeVar("T")
DEPLOYMENTS, KEYS = "deployments", "keys"
"""Counters: of what was declared, and of revocations."""


@dataclass(frozen=True)
class View:
    """Everything that a look needs, of one moment."""

    claim: Claim
    published: int
    """Raised by each change of what the leader published."""
    planes: list[ControlPlane]
    counters: Mapping[str, int]
    newest_event: int


def look(session: Session) -> View:
    leader = session.get_one(Leader, ONLY)
    counters = session.exec(select(SharedCounter)).all()
    return View(
        claim=Claim(leader.owner, leader.epoch, leader.beat),
        published=leader.published,
        planes=list(session.exec(select(ControlPlane))),
        counters={row.name: row.value for row in counters},
        newest_event=session.exec(select(func.max(Event.seq))).one() or 0,
    )


def raising(counter: str, unit: Callable[[Session], T]) -> Callable[[Session], T]:
    """`unit`, and word of it to the other control planes in the same transaction.

    Whoever raises the counter holds its row until the commit, so that its values appear in order
    and no change is overlooked.
    """

    def run(session: Session) -> T:
        found = unit(session)
        session.execute(
            update(SharedCounter)
            .where(col(SharedCounter.name) == counter)
            .values(value=SharedCounter.value + 1)
        )
        return found

    return run


def tell(session: Session, plane: ControlPlane) -> None:
    """Write this control plane's own row."""
    session.merge(plane)


def leave(session: Session, plane_id: str) -> None:
    session.execute(delete(ControlPlane).where(col(ControlPlane.id) == plane_id))


def published(session: Session) -> dict[str, dict[str, Any]]:
    """What the leader published, by deployment id."""
    return {row.deployment_id: row.content for row in session.exec(select(Publication))}


def publish(session: Session, epoch: int, changed: Mapping[str, dict[str, Any] | None]) -> None:
    """Replace these publications, or withdraw them where there is none. Raises Deposed."""
    raise_published(session, epoch)
    for deployment_id, content in changed.items():
        if content is None:
            session.execute(
                delete(Publication).where(col(Publication.deployment_id) == deployment_id)
            )
        else:
            session.merge(Publication(deployment_id=deployment_id, content=content))


def finished_among(session: Session, invocation_ids: list[str]) -> list[str]:
    """Those of these that are finished."""
    return list(
        session.exec(
            select(Invocation.id).where(
                col(Invocation.id).in_(invocation_ids), col(Invocation.finished_at).is_not(None)
            )
        )
    )
