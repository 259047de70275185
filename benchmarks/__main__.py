"""Measure Tidegate and its peers side by side: `make bench`.

Writes the rows, the circumstances and the plots into benchmarks/results/, the table into
docs/performance.md, and prints it.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.catalogue import PEERS, System, peer_systems, python_of, tidegate_systems
from benchmarks.report import LATEST, PAGE, read_result, show, write_page
from benchmarks.suite import Order, Suite


def main() -> int:
    given = _parse()
    # So that the drivers, some of them stopped, are ended when this process is asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threads = given.threads or len(os.sched_getaffinity(0))
    order = Order(given.folder, threads, given.quick, _command())
    result = Suite(order, say=_say).run(_chosen(given.peers.split(), given.systems))
    result.write(given.output)
    rows, meta = read_result(given.output)
    show(rows, meta)
    draw(given.folder, given.output)
    if given.output == LATEST and PAGE.exists():
        write_page(PAGE, rows, meta)
    return 0


def draw(folder: Path, output: Path) -> None:
    """The plots, where there is a matplotlib to draw them."""
    python = python_of(folder, "plots")
    if not python.exists():
        _say("no plots: `make bench-setup` installs what draws them")
        return
    subprocess.run([str(python), "-m", "benchmarks.plots", str(output)], check=True)


def _chosen(peers: list[str], patterns: list[str]) -> list[System]:
    """Tidegate's systems and the peers that were named, without what no pattern matches."""
    found = [*tidegate_systems(), *(each for each in peer_systems() if each.environment in peers)]
    return [each for each in found if any(fnmatch(each.name, pattern) for pattern in patterns)]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--peers", default=" ".join(PEERS), help="names with blanks between them")
    parser.add_argument("--systems", nargs="+", default=["*"], help="patterns, to leave some out")
    parser.add_argument("--threads", type=int, help="every core when absent")
    parser.add_argument("--quick", action="store_true", help="measure once only, to try it out")
    parser.add_argument("--output", type=Path, default=LATEST)
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="peers and weights")
    given = parser.parse_args()
    unknown = set(given.peers.split()) - PEERS.keys()
    if unknown:
        parser.error(f"no peer is called {', '.join(unknown)}; there are {', '.join(PEERS)}")
    return given


def _command() -> str:
    """What reproduces this run."""
    return " ".join(["python -m benchmarks", *(_quoted(each) for each in sys.argv[1:])])


def _quoted(argument: str) -> str:
    return f'"{argument}"' if set(argument) & set(" *") else argument


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
