"""The unit of work: whole or not at all, in a short transaction off the event loop.

A unit is a plain function of a Session. It never waits for anything but the database, it changes
nothing but rows (so that it can be run again after a conflict), and what it returns must be usable
after the session is closed: rows are detached, not expired.

Units that write behave as if they took turns, on each engine: what a unit read still holds when it
commits. `store.sqlite` lets them take turns, `store.postgres` runs them again after a conflict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlmodel import Session

T = TypeVar("T")


class Transactions(Protocol):
    """Runs a unit of work, whole or not at all, and returns what it returns."""

    async def write(self, unit: Callable[[Session], T]) -> T:
        """Run `unit` and commit what it did, or nothing of it when it raises.

        A caller that is cancelled does not stop a unit that has begun, and hears of it when the
        unit has ended: whoever looks after that sees whether it committed.
        """
        ...

    async def read(self, unit: Callable[[Session], T]) -> T:
        """Run `unit` on one consistent view; it cannot write."""
        ...


class Database(Transactions, Protocol):
    """Where rows live."""

    @property
    def shared(self) -> bool:
        """Whether other control planes may use it at the same time."""
        ...

    @property
    def writer(self) -> Engine:
        """An engine that may change tables, for migrations before anything else runs."""
        ...

    def snapshot(self) -> Connection:
        """One consistent view that cannot write, until it is closed: for reading everything."""
        ...

    def close(self) -> None:
        """Wait for what runs, then let go of the database."""
        ...


@dataclass(frozen=True)
class Guarded(Generic[T]):
    """A unit each of whose changes names what it saw, and which needs no turn among the others.

    It changes rows by `WHERE id AND lease_epoch AND status` alone, or locks what it takes, so it
    stays right when others commit between its statements. Queue work is of this kind; it is what
    many control planes do at once, and what conflicts over index pages would slow down most.
    """

    unit: Callable[[Session], T]

    def __call__(self, session: Session) -> T:
        return self.unit(session)
