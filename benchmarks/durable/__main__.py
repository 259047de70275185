"""Measure what durable work costs in its store: `make bench-durable`.

Writes the rows and the circumstances into benchmarks/results/ and prints a table.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.durable import served
from benchmarks.durable.stores import fill, postgres, postgres_server, sqlite
from benchmarks.durable.work import ROOM, backlog_times, claim_times, rates
from benchmarks.hardware import hardware, versions
from benchmarks.rows import Row
from benchmarks.serverless.__main__ import show
from benchmarks.serverless.percentiles import percentile
from benchmarks.suite import Result

from tidegate_controlplane.store.database import Database

OUTPUT = Path("benchmarks/results/durable.json")
SIZES = (1_000, 10_000, 100_000, 1_000_000)
Opened = Callable[[], contextlib.AbstractContextManager[Database]]


def main() -> int:
    given = _parse()
    number, times = (500, 20) if given.quick else (5000, 200)
    sizes = SIZES[:2] if given.quick else SIZES
    _say("over HTTP")
    rows = served.measure(200 if given.quick else 2000)
    with postgres_server() as url:
        stores: dict[str, Opened] = {
            "SQLite": lambda: sqlite(durable=True),
            "SQLite, synchronous=OFF": lambda: sqlite(durable=False),
            "PostgreSQL": lambda: postgres(url, durable=True),
            "PostgreSQL, synchronous_commit=off": lambda: postgres(url, durable=False),
        }
        for name, opened in stores.items():
            _say(f"{name}: {number} requests")
            with opened() as database:
                rows += asyncio.run(_rates(name, database, number))
        for name in ("SQLite", "PostgreSQL"):
            with stores[name]() as database:
                rows += asyncio.run(_growth(name, database, sizes, times))
    meta = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks.durable", *sys.argv[1:]]),
        "hardware": hardware(),
        "versions": versions(Path(sys.executable), ("tidegate", "sqlalchemy", "psycopg")),
    }
    Result(rows, meta).write(given.output)
    show(rows, [])
    return 0


async def _rates(name: str, database: Database, number: int) -> list[Row]:
    found = await rates(database, number)
    workload = "a request's way"
    return [
        Row(name, workload, "enqueue", found.enqueued, "/s", ""),
        Row(name, workload, f"claim by {ROOM}", found.claimed, "/s", ""),
        Row(name, workload, "complete", found.completed, "/s", ""),
        Row(name, workload, "in all", 1000 * found.request_s, "ms/request", ""),
    ]


async def _growth(name: str, database: Database, sizes: tuple[int, ...], times: int) -> list[Row]:
    """One look after the other while the queue grows; nothing is vacuumed or analysed for it."""
    rows: list[Row] = []
    queued = 0
    for size in sizes:
        _say(f"{name}: {size:,} queued")
        await asyncio.to_thread(fill, database, queued, size)
        queued = size
        for room in (1, ROOM):
            few = min(times, size // (8 * room))  # the queue stays as long as it says
            taken = await claim_times(database, few, room)
            rows += _milliseconds(name, f"{size:,} queued", f"claim of {room}", taken)
        looks = await backlog_times(database, times // 4)
        rows += _milliseconds(name, f"{size:,} queued", "backlog", looks)
    return rows


def _milliseconds(name: str, workload: str, what: str, taken: list[float]) -> list[Row]:
    return [
        Row(name, workload, f"{what}, p{round(100 * share)}", 1000 * found, "ms", "")
        for share in (0.5, 0.99)
        for found in [percentile(taken, share)]
    ]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durable", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests, to try it out")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
