"""Which objects some row still needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from sqlmodel import Session, col, select

from tidegate_controlplane.store.batches import is_unfinished
from tidegate_controlplane.store.tables import Batch, File, Invocation


class Kind(Enum):
    REQUEST = auto()
    RESULT = auto()
    """Of one run; `part` is its epoch."""
    FILE = auto()
    LINE = auto()
    """The request of a batch's line; `part` is its number."""
    BATCH_FILE = auto()


@dataclass(frozen=True)
class Owner:
    """What an object's name says of the row that it belongs to."""

    kind: Kind
    project_id: str
    id: str
    """Of the invocation, the file or the batch."""
    part: int = 0


def unneeded(session: Session, owners: Mapping[str, Owner]) -> set[str]:
    """Those of the keys that no row needs, nor one that is still being worked on."""
    needed = _of_files(session, owners)
    needed |= _of_invocations(session, owners)
    needed |= _of_batches(session, owners)
    return set(owners) - needed


def _of_invocations(session: Session, owners: Mapping[str, Owner]) -> set[str]:
    """Bodies and results of rows; also the result that a run may be about to publish."""
    ids = _ids(owners, Kind.REQUEST, Kind.RESULT)
    columns = select(
        Invocation.id, Invocation.project_id, Invocation.request_key, Invocation.result_key
    )
    kept = session.exec(columns.where(col(Invocation.id).in_(ids))).all()
    running = session.exec(
        select(Invocation.id, Invocation.project_id, Invocation.lease_epoch).where(
            col(Invocation.id).in_(ids), col(Invocation.finished_at).is_(None)
        )
    )
    publishing = {Owner(Kind.RESULT, project, id_, epoch) for id_, project, epoch in running}
    named = {key for row in kept for key in row[2:] if key}
    return named | {key for key, owner in owners.items() if owner in publishing}


def _of_files(session: Session, owners: Mapping[str, Owner]) -> set[str]:
    query = select(File.object_key).where(
        col(File.object_key).in_(list(owners)), col(File.deleted_at).is_(None)
    )
    return set(session.exec(query))


def _of_batches(session: Session, owners: Mapping[str, Owner]) -> set[str]:
    """Whatever an unfinished batch wrote, and the requests of lines that have a row."""
    ids = _ids(owners, Kind.LINE, Kind.BATCH_FILE)
    unfinished = set(session.exec(select(Batch.id).where(col(Batch.id).in_(ids), is_unfinished())))
    lines = [key for key, owner in owners.items() if owner.kind is Kind.LINE]
    parts = {owners[key].part for key in lines}
    named = session.exec(
        select(Invocation.request_key).where(
            col(Invocation.batch_id).in_({owners[key].id for key in lines}),
            col(Invocation.line_no).in_(parts),
            col(Invocation.request_key).is_not(None),
        )
    )
    own = {key for key, owner in owners.items() if owner.id in unfinished}
    return own | {key for key in named if key}


def _ids(owners: Mapping[str, Owner], *kinds: Kind) -> Iterable[str]:
    return {owner.id for owner in owners.values() if owner.kind in kinds}
