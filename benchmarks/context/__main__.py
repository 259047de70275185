"""Measure what compressed contexts lose and what spilled prefixes save.

`python -m benchmarks.context` writes the rows and the circumstances into benchmarks/results/ and
prints a table.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.context import compression, restart
from benchmarks.context.model import Model
from benchmarks.hardware import hardware, versions
from benchmarks.rows import Row
from benchmarks.suite import OWN_PACKAGES, Result
from benchmarks.weights import bundled_model
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

OUTPUT = Path("benchmarks/results/context.json")
PRECISION = "int4"


def main() -> int:
    given = _parse()
    artifact = given.artifact
    if artifact is None:
        model = bundled_model(given.folder / "models")
        if why_not := model.prepare("artifact", PRECISION):
            raise SystemExit(why_not)
        artifact = model.path("artifact", PRECISION)
    rows: list[Row] = []
    if given.what in ("both", "restart"):
        rows += asyncio.run(restart.measure(artifact, given.threads, given.times, _say))
    if given.what in ("both", "compression"):
        rows += asyncio.run(_compression(artifact, given))
    meta = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks.context", *sys.argv[1:]]),
        "hardware": hardware(),
        "load": os.getloadavg(),
        "versions": versions(Path(sys.executable), OWN_PACKAGES),
    }
    Result(rows, meta).write(given.output)
    _show(rows)
    return 0


async def _compression(artifact: Path, given: argparse.Namespace) -> list[Row]:
    model = Model(artifact, given.threads)
    tasks = [given.task] if given.task else list(compression.TASKS)
    rows = await compression.measure(model, tasks, given.shares, given.cases, _say)
    model.engine.stop("measured")
    return rows


def _show(rows: list[Row]) -> None:
    """One line for each system and workload."""
    table = Table("workload", "system", "figures", box=MARKDOWN)
    lines: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        figure = f"{row.metric} {row.value:g} {row.unit}"
        lines.setdefault((row.workload, row.system), []).append(figure)
    for (workload, system), figures in lines.items():
        table.add_row(workload, system, ", ".join(figures))
    Console(width=160).print(table)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.context", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=("both", "restart", "compression"), default="both"
    )
    parser.add_argument(
        "--artifact", type=Path, help="the bundled model's, built anew, when absent"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--task", choices=compression.TASKS, help="both when absent")
    parser.add_argument("--shares", type=int, nargs="+", default=compression.SHARES, help="percent")
    parser.add_argument("--cases", type=int, default=12, help="chats, and texts")
    parser.add_argument("--times", type=int, default=5, help="conversations, each way")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
