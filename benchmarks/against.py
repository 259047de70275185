"""Whether a change costs those who do not use it: `python -m benchmarks.against REVISION`.

An engine of this checkout and one of an older revision, each with the artifact that its own code
builds, answer the same prompts right after each other, and who goes first alternates. So what the
machine does meanwhile meets both alike, and pairs are compared, not averages: per workload, the
median of new / old, with the interval that holds the true median in 95 of 100 such runs (order
statistics of the sign test). Writes benchmarks/results/against.json.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import statistics
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.hardware import hardware
from benchmarks.measure import WARM_UP_TOKENS, figure
from benchmarks.process import Command, Process
from benchmarks.prose import prose
from benchmarks.report import RESULTS
from benchmarks.weights import bundled_model
from benchmarks.workloads import (
    CONTEXT_TOKENS,
    DECODE_1,
    PREFILL_1024,
    THROUGHPUT_32,
    Generation,
    Prompts,
)

from tidegate.local.demo_model import demo_model

WORKS = (
    replace(DECODE_1, repeats=40),
    replace(THROUGHPUT_32, repeats=16),
    replace(PREFILL_1024, repeats=30),
)
ROOTS = ("sdk", "controlplane", "runtime", "infra")
DRIVER = "benchmarks.systems.tidegate"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """One workload: each pair of figures, the old one first."""

    workload: str
    unit: str
    pairs: Sequence[tuple[float, float]]

    @property
    def ratios(self) -> list[float]:
        """New over old, smallest first."""
        return sorted(new / old for old, new in self.pairs)

    def row(self) -> dict[str, Any]:
        """As it is written and shown."""
        ratios = self.ratios
        low, high = interval(len(ratios))
        return {
            "workload": self.workload,
            "unit": self.unit,
            "old": statistics.median(old for old, _ in self.pairs),
            "new": statistics.median(new for _, new in self.pairs),
            "ratio": statistics.median(ratios),
            "low": ratios[low],
            "high": ratios[high],
            "pairs": len(ratios),
        }


def interval(count: int, confidence: float = CONFIDENCE) -> tuple[int, int]:
    """Which of `count` sorted samples enclose the median with at least this confidence.

    The number of samples below the median is binomial, whatever their distribution. Raises
    ValueError where even the smallest and the largest do not enclose it so surely.
    """
    outside, low = 0.0, 0
    while (outside := outside + 2 * math.comb(count, low) / 2**count) <= 1 - confidence:
        low += 1
    if low == 0:
        raise ValueError(f"{count} pairs are too few for {confidence:.0%}; take 6 or more")
    return low - 1, count - low


def main() -> int:
    given = _parse()
    sides = {
        "old": _checkout(given.revision, given.folder / "against"),
        "new": Path(__file__).resolve().parents[1],
    }
    commands = {name: _command(name, root, given) for name, root in sides.items()}
    model = bundled_model(given.folder / "models")
    prompts = Prompts(model.tokens(prose()), model.frame())
    processes = {name: Process(command) for name, command in commands.items()}
    try:
        for process in processes.values():
            process.pause()
        found = [_compare(processes, work, prompts) for work in WORKS]
    finally:
        for process in processes.values():
            process.close()
    rows = [each.row() for each in found]
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": given.revision,
        "precision": given.precision,
        "hardware": hardware(),
        "load": os.getloadavg()[0],
        "rows": rows,
        "pairs": {each.workload: each.pairs for each in found},
    }
    given.output.write_text(json.dumps(result, indent=2) + "\n")
    print("\n".join(table(rows)))
    return 0


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown."""
    lines = ["| workload | old | new | new / old | 95 % | pairs |", "|---|---|---|---|---|---|"]
    for row in rows:
        figures = f"{row['old']:.0f} | {row['new']:.0f} {row['unit']} | {row['ratio']:.3f}"
        lines.append(
            f"| `{row['workload']}` | {figures} | {row['low']:.3f}–{row['high']:.3f} "
            f"| {row['pairs']} |"
        )
    return lines


def _compare(processes: dict[str, Process], work: Generation, prompts: Prompts) -> Comparison:
    warm = replace(work, max_tokens=min(work.max_tokens, WARM_UP_TOKENS))
    asked = prompts.take(warm)
    for process in processes.values():
        _seconds(process, warm, asked)
    pairs = []
    for turn in range(work.repeats):
        first = prompts.take(work) if work.metric == "decode" else []
        asked = prompts.take(work)
        sides = ["old", "new"] if turn % 2 else ["new", "old"]
        pair = {name: _figure(processes[name], work, first, asked) for name in sides}
        pairs.append((pair["old"], pair["new"]))
    found = Comparison(work.name, work.unit, pairs)
    print(table([found.row()])[-1], file=sys.stderr, flush=True)
    return found


def _figure(
    process: Process, work: Generation, first: list[list[int]], asked: list[list[int]]
) -> float:
    first_token_s = _seconds(process, replace(work, max_tokens=1), first) if first else 0.0
    return figure(work, _seconds(process, work, asked), first_token_s)


def _seconds(process: Process, work: Generation, prompts: list[list[int]]) -> float:
    process.resume()
    try:
        answer = process.ask({"generate": {"prompts": prompts, "max_tokens": work.max_tokens}})
    finally:
        process.pause()
    return float(answer["seconds"])


def _checkout(revision: str, folder: Path) -> Path:
    """The files of a revision, in a directory of their own."""
    ask = ["git", "rev-parse", "--short", f"{revision}^{{commit}}"]
    commit = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
    root = folder.absolute() / commit
    if not root.exists():
        packed = subprocess.run(["git", "archive", commit], check=True, capture_output=True)
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(root, filter="data")
    return root


def _command(name: str, root: Path, given: argparse.Namespace) -> Command:
    """How a side's driver is started, once its own code has built its artifact."""
    path = os.pathsep.join(str(root / each) for each in (*ROOTS, "."))
    env = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(given.threads), "PYTHONSAFEPATH": "1"}
    artifact = (given.folder / "against" / f"{name}-{root.name}-{given.precision}").absolute()
    if not artifact.exists():
        build = [sys.executable, "-m", "tidegate_runtime.artifact", "build", str(demo_model())]
        build += ["--precision", given.precision, "--output", str(artifact)]
        subprocess.run(build, check=True, cwd=root, env={**os.environ, **env}, stdout=sys.stderr)
    arguments = [sys.executable, "-m", DRIVER, "--model", str(artifact)]
    arguments += ["--threads", str(given.threads), "--streams", str(THROUGHPUT_32.streams)]
    arguments += ["--context-tokens", str(CONTEXT_TOKENS)]
    return Command(arguments, env, artifact.with_suffix(".log"))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against", description=__doc__)
    parser.add_argument("revision", help="the older side: whatever git resolves to a commit")
    parser.add_argument("--precision", default="int8", choices=["int4", "int8", "bf16"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, default=RESULTS / "against.json")
    parser.add_argument("--folder", type=Path, default=Path(".bench"), help="weights and revisions")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
