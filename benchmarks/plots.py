"""Draw the latest result: `.bench/peers/plots/bin/python -m benchmarks.plots`.

Runs in a virtual environment of its own, where matplotlib is and nothing of Tidegate has to be.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl  # type: ignore[import-not-found]
from benchmarks.rows import Row, read_rows
from matplotlib import pyplot

OURS, THEIRS, BOUND = "#0b6e75", "#b8b8b8", "#c0392b"
PLOTS = {
    "decode": ("decode_1", "decode, one stream (tok/s)"),
    "throughput": ("throughput_32", "32 requests, 128 in / 128 out (output tok/s)"),
    "prefill": ("prefill_1024", "prefill, 1024 tokens (tok/s)"),
}


def main(latest: Path) -> None:
    mpl.use("svg")
    mpl.rcParams.update({"font.size": 9, "svg.hashsalt": "tidegate", "figure.autolayout": True})
    rows = read_rows(latest)
    for name, (workload, title) in PLOTS.items():
        draw(rows, workload, title, latest.parent / f"{name}.svg")
    draw_batches(rows, latest.parent / "batches.svg")


def draw(rows: Sequence[Row], workload: str, title: str, path: Path) -> None:
    """A bar a system, fastest first, each with a stroke where its bound is."""
    found = sorted(_of(rows, workload), key=lambda row: row.value)
    if not found:
        return
    figure, axes = pyplot.subplots(figsize=(6.4, 0.8 + 0.32 * len(found)))
    colours = [OURS if row.system.startswith("tidegate") else THEIRS for row in found]
    bars = axes.barh(
        [f"{row.system}  {row.precision}" for row in found],
        [row.value for row in found],
        color=colours,
    )
    axes.bar_label(bars, fmt="%.0f", padding=3)
    for place, row in enumerate(found):
        share = _value(rows, row.system, workload + "_of_bound")
        if share:
            best = row.value / share
            axes.plot([best, best], [place - 0.4, place + 0.4], color=BOUND, linewidth=1.5)
    axes.set_title(f"{title}; red: the bound of this machine", loc="left", fontsize=9)
    _save(figure, axes, path)


def draw_batches(rows: Sequence[Row], path: Path) -> None:
    """Output rate by the number of streams."""
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6))
    for system in dict.fromkeys(row.system for row in rows if row.system != "bound"):
        points = [(count, _value(rows, system, f"throughput_{count}")) for count in (8, 32, 64)]
        known = [(count, value) for count, value in points if value is not None]
        if len(known) > 1:
            style = "-o" if system.startswith("tidegate") else "--s"
            axes.plot(*zip(*known, strict=True), style, label=system, markersize=4)
    axes.set_xlabel("streams")
    axes.set_ylabel("output tok/s")
    axes.set_ylim(bottom=0)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)
        _save(figure, axes, path)


def _of(rows: Sequence[Row], workload: str) -> list[Row]:
    return [row for row in rows if row.workload == workload and row.system != "bound"]


def _value(rows: Sequence[Row], system: str, workload: str) -> float | None:
    return next(
        (row.value for row in rows if (row.system, row.workload) == (system, workload)), None
    )


def _save(figure: pyplot.Figure, axes: pyplot.Axes, path: Path) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("benchmarks/results/latest.json"))
