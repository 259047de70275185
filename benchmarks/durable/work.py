"""What a control plane asks of its store for a request: to keep it, to claim it, to end it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from tidegate_controlplane.domain.shares import Turns
from tidegate_controlplane.store import claims, invocations, leases
from tidegate_controlplane.store.backlog import backlog
from tidegate_controlplane.store.database import Database, Guarded
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.leases import Lease, Result
from tidegate_controlplane.store.tables import Invocation

DEPLOYMENT = "dep_1"
LANES = 64
"""Requests at once."""
ROOM = 16
"""Requests that one claim takes: what a replica has room for."""
BODY = b'{"model": "m", "prompt": "' + b"x" * 800 + b'"}'
DONE = Result(BODY, None, 200, 100)


@dataclass(frozen=True)
class Rates:
    """Requests a second, each step by itself."""

    enqueued: float
    claimed: float
    completed: float

    @property
    def request_s(self) -> float:
        """Seconds of the store for one request, from its insertion to its result."""
        return 1 / self.enqueued + 1 / self.claimed + 1 / self.completed


async def rates(database: Database, number: int) -> Rates:
    """Of `number` requests that are inserted, then claimed, then completed."""
    rows = [_row(count) for count in range(number)]
    enqueued = await _rate(rows, lambda row: database.write(partial(invocations.insert, row=row)))
    begun, claimed = time.perf_counter(), [*await claim(database, Turns())]
    while len(claimed) < number:
        claimed += await claim(database, Turns())
    claims_per_s = number / (time.perf_counter() - begun)
    completed = await _rate(claimed, lambda row: _complete(database, row))
    return Rates(enqueued, claims_per_s, completed)


async def claim(database: Database, turns: Turns, room: int = ROOM) -> list[Invocation]:
    unit = partial(
        claims.claim,
        deployment_id=DEPLOYMENT,
        owner="bench",
        now=datetime.now(UTC),
        alone=room,
        lines=0,
        turns=turns,
    )
    return await database.write(Guarded(unit))


async def claim_times(database: Database, times: int, room: int) -> list[float]:
    """Seconds of each of `times` claims."""
    taken, turns = [], Turns()
    for _ in range(times):
        begun = time.perf_counter()
        rows = await claim(database, turns, room)
        taken.append(time.perf_counter() - begun)
        turns = claims.turns_after(turns, rows)
    return taken


async def backlog_times(database: Database, times: int) -> list[float]:
    """Seconds of each look at the backlog."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        await database.read(partial(backlog, now=datetime.now(UTC)))
        taken.append(time.perf_counter() - begun)
    return taken


async def _complete(database: Database, row: Invocation) -> None:
    unit = partial(leases.succeed, lease=Lease.of(row), now=datetime.now(UTC), result=DONE)
    if not await database.write(Guarded(unit)):
        raise RuntimeError(f"the lease of {row.id} was lost")


async def _rate(
    rows: Sequence[Invocation], work: Callable[[Invocation], Awaitable[object]]
) -> float:
    """Rows a second, LANES at a time."""

    async def lane(start: int) -> None:
        for row in rows[start::LANES]:
            await work(row)

    begun = time.perf_counter()
    await asyncio.gather(*(lane(start) for start in range(LANES)))
    return len(rows) / (time.perf_counter() - begun)


def _row(number: int) -> Invocation:
    now = datetime.now(UTC)
    return Invocation(
        id=new_id("inv"),
        project_id=f"prj_{number % 10:03}",
        deployment_id=DEPLOYMENT,
        model="m",
        endpoint="/v1/completions",
        status="queued",
        timeout_s=900.0,
        request=BODY,
        request_sha256="0" * 64,
        created_at=now,
        available_at=now,
        tokens=300,
    )
