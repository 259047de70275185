"""Units that are run again because what they did was not committed.

A row object that a unit added counts as stored from its flush on. If the transaction is lost after
that, adding the same object again would insert nothing, and a unit that runs again would report
success for a row that is not there.
"""

from __future__ import annotations

from sqlalchemy import event
from sqlalchemy.orm import make_transient
from sqlmodel import Session


class Added:
    """What sessions inserted, so that it can be inserted again."""

    def __init__(self) -> None:
        self._rows: list[object] = []

    def watch(self, session: Session) -> None:
        event.listen(session, "pending_to_persistent", lambda _, row: self._rows.append(row))

    def take_back(self) -> None:
        """After the sessions were closed and nothing of them was committed: all are new again."""
        for row in self._rows:
            make_transient(row)
