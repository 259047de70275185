"""Measure what a deployment at zero costs those who ask it: `make bench-serverless`.

Writes the rows and the circumstances into benchmarks/results/ and prints a table.
"""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.catalogue import PEERS, peer_systems
from benchmarks.hardware import hardware, versions
from benchmarks.rows import Row
from benchmarks.serverless import autoscaler, burst, overhead, zero
from benchmarks.serverless.platform import running
from benchmarks.suite import OWN_PACKAGES, Order, Result, Suite
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

OUTPUT = Path("benchmarks/results/serverless.json")
WIDTH = 180
MANY = 1000
PRECISION = "int4"
"""What the plan chooses for the bundled model."""


def main() -> int:
    given = _parse()
    order = Order(given.folder, len(os.sched_getaffinity(0)), given.quick, _command())
    suite = Suite(order, _say)
    systems = [each for each in peer_systems() if each.environment in given.peers.split()]
    commands = suite.commands(systems)
    peers = {
        system.name: (system.precision, commands[system.name])
        for system in systems
        if system.name in commands
    }
    times = 10 if given.quick else 50
    rows: list[Row] = []
    with running(suite.model().gguf) as platform:
        rows += zero.measure(platform, PRECISION, peers, times, _say)
        rows += burst.measure(platform, PRECISION)
    _say("the autoscaler, simulated")
    rows += autoscaler.measure(seeds=1 if given.quick else 5)
    _say("the gateway's own time")
    rows += overhead.measure()
    missing = [system.name for system in systems if system.name not in commands]
    meta = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": order.command,
        "hardware": hardware(),
        "versions": versions(Path(sys.executable), OWN_PACKAGES),
        "missing": missing,
    }
    Result(rows, meta).write(given.output)
    show(rows, missing)
    return 0


def show(rows: list[Row], missing: list[str]) -> None:
    """A line for each system and workload, with all its figures."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        number = f"{row.value:,.0f}" if row.value >= MANY else f"{row.value:.4g}"
        figure = f"{row.metric} {number} {row.unit}"
        lines.setdefault((row.workload, row.system, row.precision), []).append(figure)
    table = Table("workload", "system", "precision", "figures", box=MARKDOWN)
    for (workload, system, precision), figures in lines.items():
        table.add_row(workload, system, precision, ", ".join(figures))
    for name in missing:
        table.add_row("", name, "", "missing: run `make bench-setup`")
    Console(width=WIDTH).print(table)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serverless", description=__doc__)
    parser.add_argument("--peers", default=" ".join(PEERS), help="names with blanks between them")
    parser.add_argument("--quick", action="store_true", help="fewer times, to try it out")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="peers and weights")
    return parser.parse_args()


def _command() -> str:
    return " ".join(["python -m benchmarks.serverless", *sys.argv[1:]])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
