"""The database as a leader sees it: everything it does there is void once it is deposed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlmodel import Session

from tidegate_controlplane.store.database import Transactions
from tidegate_controlplane.store.leadership import check_term, hold_term

T = TypeVar("T")


class Fenced:
    """Implements `Transactions` for one term. Both methods raise Deposed once it has ended."""

    def __init__(self, database: Transactions, epoch: int) -> None:
        self._database = database
        self._epoch = epoch

    async def write(self, unit: Callable[[Session], T]) -> T:
        """Commit `unit` while the term lasts: a takeover waits until it has ended, or is seen."""

        def fenced(session: Session) -> T:
            hold_term(session, self._epoch)
            return unit(session)

        return await self._database.write(fenced)

    async def read(self, unit: Callable[[Session], T]) -> T:
        def checked(session: Session) -> T:
            check_term(session, self._epoch)
            return unit(session)

        return await self._database.read(checked)
