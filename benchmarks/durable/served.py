"""What durability costs a request: the same one asked with nothing written, and kept on disk.

The real control plane, a replica that answers at once and the clients are three processes on this
machine. `POST /v1/chat/completions` passes through and leaves nothing behind. `POST
/v1/invocations` with `Prefer: wait` keeps the same request, runs it on the same replica, keeps its
result, and answers then. Both are asked in turns within one run, so that they see the same machine.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.rows import Row
from benchmarks.serverless.client import Connection, Target
from benchmarks.serverless.overhead import gateway, replica

SYSTEM = "SQLite"
CLIENTS = (1, 32)
"""At once, each with one request after the other."""
TURNS = 3
PLAIN, KEPT = "nothing written", "accepted, run and kept"
WAYS = {
    PLAIN: ("/v1/chat/completions", ""),
    KEPT: ("/v1/invocations", "prefer: wait=60\r\n"),
}


@dataclass(frozen=True)
class Taken:
    """One turn of one way."""

    requests: int
    seconds: float

    @property
    def request_ms(self) -> float:
        """From one answer to the next, of all clients together."""
        return 1000 * self.seconds / self.requests


def measure(requests: int) -> list[Row]:
    """Start everything, ask `requests` of each kind a turn, stop everything."""
    with replica() as answering, gateway(answering.url) as target:
        return [
            row for clients in CLIENTS for row in asyncio.run(_measure(target, clients, requests))
        ]


async def _measure(target: Target, clients: int, requests: int) -> list[Row]:
    taken: dict[str, list[Taken]] = {way: [] for way in WAYS}
    for _ in range(TURNS):
        for way in WAYS:
            taken[way].append(await _turn(target, way, clients, requests // clients))
    return rows(taken, clients)


def rows(taken: Mapping[str, list[Taken]], clients: int) -> list[Row]:
    """The median of each way's turns, and what durability adds to the way that keeps nothing."""
    median = {way: statistics.median(each.request_ms for each in taken[way]) for way in WAYS}
    median["durability"] = median[KEPT] - median[PLAIN]
    workload = f"over HTTP, {clients} at once"
    return [Row(SYSTEM, workload, way, found, "ms/request", "") for way, found in median.items()]


async def _turn(target: Target, way: str, clients: int, each: int) -> Taken:
    path, headers = WAYS[way]
    request = target.request(stream=False, tokens=1, path=path, headers=headers)
    connections = [await Connection.open(target) for _ in range(clients)]

    async def ask(connection: Connection) -> None:
        for _ in range(each):
            await connection.ask(request)

    began = time.perf_counter()
    await asyncio.gather(*map(ask, connections))
    seconds = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return Taken(clients * each, seconds)
