"""What the gateway adds to a request, and how many streams one gateway process carries.

The real control plane, a replica that answers at once and the client are three processes on this
machine. Each figure compares requests through the gateway with the same requests sent to the
replica directly, in turns within one run.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rows import Row
from benchmarks.serverless.client import Connection, Target
from benchmarks.serverless.percentiles import percentile
from benchmarks.serverless.platform import ended, started
from benchmarks.serverless.realtime import run_first

SYSTEM = "tidegate gateway"
WORKLOAD = "gateway_overhead"
NO_MODEL = "none"
"""The replica answers at once, so there is no precision."""
EVENTS = 32
INTERVAL_S = 0.05
"""Between the events of a stream: 20 tokens a second, as fast as most people skim."""
STREAMS = 100
TURNS = 3
REQUESTS = 200
"""One after the other, a turn."""
SECONDS = 3.0
"""Of many streams at once, a turn."""
BOUND_S = 0.05
SETTLED_S = 0.5
"""From its announcement until the gateway does nothing but answer."""


@dataclass(frozen=True)
class Sample:
    """What clients saw, in seconds."""

    first_s: Sequence[float]
    """From a request to the first event of its answer, or to its end when it is no stream."""
    delay_s: Sequence[float]
    """Of each event, from its sending by the replica."""


def measure() -> list[Row]:
    """Start everything, measure, stop everything."""
    run_first()
    with replica() as direct, gateway(direct.url) as through:
        return asyncio.run(_measure(direct, through))


async def _measure(replica: Target, gateway: Target) -> list[Row]:
    """`gateway_overhead` is added to the first byte at 100 streams of 20 events a second, `_event`
    to each event of them; `_whole` and `_stream` to requests that come one after the other.
    """
    rows = []
    for stream in (False, True):
        pairs = [
            (await _one(replica, stream=stream), await _one(gateway, stream=stream))
            for _ in range(TURNS)
        ]
        workload = WORKLOAD + ("_stream" if stream else "_whole")
        rows += added(workload, [(a.first_s, b.first_s) for a, b in pairs])
    pairs = [(await _many(replica, STREAMS), await _many(gateway, STREAMS)) for _ in range(TURNS)]
    rows += added(WORKLOAD, [(a.first_s, b.first_s) for a, b in pairs])
    rows += added(WORKLOAD + "_event", [(a.delay_s, b.delay_s) for a, b in pairs])
    carried = float(await _carried(gateway))
    return [*rows, Row(SYSTEM, "gateway_streams", "carried", carried, "streams", NO_MODEL)]


async def _one(target: Target, *, stream: bool) -> Sample:
    """Requests one after the other; a stream has one event here, and an end."""
    connection = await Connection.open(target)
    request = target.request(stream=stream, tokens=1)
    for _ in range(REQUESTS):
        await connection.ask(request)
    connection.close()
    return Sample(connection.first_s, connection.delay_s)


async def _many(target: Target, streams: int) -> Sample:
    """`streams` streams at all times, each followed by another, for a while."""
    connections = [await Connection.open(target) for _ in range(streams)]
    request = target.request(stream=True, tokens=EVENTS)
    until = time.monotonic() + SECONDS

    async def ask_again(connection: Connection, place: int) -> None:
        await asyncio.sleep(EVENTS * INTERVAL_S * place / streams)
        while time.monotonic() < until:
            await connection.ask(request)

    await asyncio.gather(*(ask_again(each, place) for place, each in enumerate(connections)))
    for connection in connections:
        connection.close()
    return Sample(
        [each for connection in connections for each in connection.first_s],
        [each for connection in connections for each in connection.delay_s],
    )


async def _carried(gateway: Target) -> int:
    """The most streams at which 99 of 100 events are passed on within the bound."""
    carried, streams = 0, STREAMS
    while percentile((await _many(gateway, streams)).delay_s, 0.99) <= BOUND_S:
        carried, streams = streams, round(streams * 1.25)
    return carried


def added(workload: str, pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> list[Row]:
    """The median over turns of what a quantile through the gateway is longer than directly."""
    return [
        Row(
            SYSTEM,
            workload,
            name,
            statistics.median(percentile(b, share) - percentile(a, share) for a, b in pairs),
            "s",
            NO_MODEL,
        )
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]


@contextlib.contextmanager
def replica() -> Iterator[Target]:
    """One that answers at once."""
    arguments = [sys.executable, "-m", "benchmarks.serverless.instant_replica"]
    arguments += [str(INTERVAL_S)]
    with ended(subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        yield Target(f"http://127.0.0.1:{int(process.stdout.readline())}", "token")


@contextlib.contextmanager
def gateway(replica_url: str) -> Iterator[Target]:
    """The whole control plane before it, in a directory of its own."""
    with tempfile.TemporaryDirectory() as home:
        arguments = ["benchmarks.serverless.gateway_process", home, replica_url]
        with started(arguments, Path(home)) as connection:
            time.sleep(SETTLED_S)
            yield Target(connection["url"], connection["api_key"])


if __name__ == "__main__":
    for row in measure():
        print(f"{row.workload:28} {row.metric:8} {row.value:10.5f} {row.unit}")
