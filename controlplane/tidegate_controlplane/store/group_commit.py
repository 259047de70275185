"""One thread that writes: units that wait when it is free share a transaction, and one fsync.

Each runs in a savepoint of its own, so one that raises leaves nothing of itself and takes nothing
of its neighbours with it. Nobody is told of success before the transaction that all share has
committed. Group commit: DeWitt et al., "Implementation techniques for main memory database
systems" (1984).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlmodel import Session

from tidegate_controlplane.store.again import Added
from tidegate_controlplane.store.faults import said_plainly

T = TypeVar("T")
GROUP = 64
"""Units in one transaction at most, so that none waits long for those before it."""


@dataclass(frozen=True)
class _Asked:
    unit: Callable[[Session], Any]
    done: Future[Any] = field(default_factory=Future)

    def tell(self, work: Callable[[], Any]) -> None:
        """Do the work, and tell whoever asked how it ended."""
        try:
            found = work()
        except BaseException as error:  # noqa: BLE001 - it is given to whoever asked
            self.done.set_exception(error)
        else:
            self.done.set_result(found)


class GroupWriter:
    """Runs units on the single connection of `engine`, in the order in which they were asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, unit: Callable[[Session], T]) -> Future[T]:
        asked = _Asked(unit)
        self._asked.put(asked)
        return asked.done

    def close(self) -> None:
        """Wait until everything that was asked is done."""
        self._asked.put(None)
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            group: list[_Asked] = []
            waiting = self._asked.get()
            while waiting is not None:
                group.append(waiting)
                if len(group) == GROUP or self._asked.empty():
                    break
                waiting = self._asked.get()
            closing = waiting is None
            self._commit(group)

    def _commit(self, group: Sequence[_Asked]) -> None:
        """All in one transaction; one by one when that fails, so that each fails for itself."""
        outcomes: list[_Outcome] = []
        if len(group) > 1:
            outcomes = self._together(group)
        for asked, outcome in zip(group, outcomes, strict=False):
            asked.tell(outcome.give)
        for asked in group[len(outcomes) :]:
            asked.tell(partial(_alone, self._engine, asked.unit))

    def _together(self, group: Sequence[_Asked]) -> list[_Outcome]:
        """What became of each, once all are committed; nothing when nothing was."""
        added = Added()
        try:
            with self._engine.begin() as connection:
                return [_within(connection, asked.unit, added) for asked in group]
        except BaseException:  # noqa: BLE001 - each runs again by itself, and raises what is its own
            added.take_back()
            return []


@dataclass(frozen=True)
class _Outcome:
    found: Any = None
    error: Exception | None = None

    def give(self) -> Any:
        if self.error:
            raise self.error
        return self.found


class _TransactionGone(Exception):
    """SQLite rolled everything back by itself, as it may when the disk is full."""


def _alone(engine: Engine, unit: Callable[[Session], T]) -> T:
    with said_plainly(), Session(engine, expire_on_commit=False) as session, session.begin():
        return unit(session)


def _within(connection: Connection, unit: Callable[[Session], Any], added: Added) -> _Outcome:
    """Run one unit in a savepoint. Raises _TransactionGone when there is none around it any more.

    A savepoint without a transaction around it would commit by itself.
    """
    outcome = _Outcome()
    try:
        with (
            said_plainly(),
            Session(
                connection, expire_on_commit=False, join_transaction_mode="create_savepoint"
            ) as session,
            session.begin(),
        ):
            added.watch(session)
            outcome = _Outcome(unit(session))
    except Exception as error:  # noqa: BLE001 - it is given to whoever asked
        outcome = _Outcome(error=error)
    driver = connection.connection.dbapi_connection
    if driver is None or not driver.in_transaction:
        raise _TransactionGone
    return outcome
