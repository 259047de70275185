"""The one row that says who reconciles. Used where several control planes share a database."""

from __future__ import annotations

from sqlalchemy import text, update
from sqlmodel import Session, col, select

from tidegate_controlplane.domain.leadership import Claim
from tidegate_controlplane.store.swap import swapped
from tidegate_controlplane.store.tables import Leader, Publication

ONLY = 1
"""The id of the row, which the migration makes."""
STOPPED_S = 5
"""A leader that is stopped inside a transaction holds the row no longer than that."""


class Deposed(Exception):
    """Another control plane reconciles now; whatever the former leader was about to do is void."""


def read_claim(session: Session) -> Claim:
    row = session.get_one(Leader, ONLY)
    return Claim(row.owner, row.epoch, row.beat)


def take_over(session: Session, seen: Claim, owner: str) -> int | None:
    """Become the leader in place of the one that was `seen`; the new epoch, None when it moved.

    What the former leader published is withdrawn in the same transaction: its replicas end.
    """
    epoch = seen.epoch + 1
    if not _change(session, seen, owner=owner, epoch=epoch, published=Leader.published + 1):
        return None
    for row in session.exec(select(Publication)):
        session.delete(row)
    return epoch


def step_down(session: Session, epoch: int) -> None:
    """Let another one lead at once; nothing when another one does already."""
    claim = read_claim(session)
    if claim.epoch == epoch:
        _change(session, claim, owner="", published=Leader.published + 1)


def beat(session: Session, epoch: int) -> None:
    """Show that the leader of `epoch` lives. Raises Deposed."""
    _change_own(session, epoch, beat=Leader.beat + 1)


def raise_published(session: Session, epoch: int) -> None:
    """Say that what the leader of `epoch` published has changed. Raises Deposed."""
    _change_own(session, epoch, published=Leader.published + 1)


def check_term(session: Session, epoch: int) -> None:
    """Raise Deposed unless `epoch` is the row's."""
    if read_claim(session).epoch != epoch:
        raise Deposed


def hold_term(session: Session, epoch: int) -> None:
    """As `check_term`, and nobody takes over until this transaction has ended."""
    session.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{STOPPED_S}s'"))
    query = select(Leader.epoch).where(Leader.id == ONLY).with_for_update(read=True)
    if session.exec(query).one() != epoch:
        raise Deposed


def _change_own(session: Session, epoch: int, **values: object) -> None:
    if not swapped(session, update(Leader).where(col(Leader.epoch) == epoch).values(**values)):
        raise Deposed


def _change(session: Session, seen: Claim, **values: object) -> bool:
    as_seen = (
        col(Leader.owner) == seen.owner,
        col(Leader.epoch) == seen.epoch,
        col(Leader.beat) == seen.beat,
    )
    return swapped(session, update(Leader).where(*as_seen).values(beat=Leader.beat + 1, **values))
