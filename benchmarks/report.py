"""From rows to the table: one line a system, every figure with its share of the bound.

    python -m benchmarks.report

writes the table of the latest result into docs/performance.md, between its two marks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bound import OF_BOUND, SYSTEM
from benchmarks.rows import Row, find, read_rows
from rich.console import Console
from rich.table import Table

RESULTS = Path("benchmarks/results")
LATEST = RESULTS / "latest.json"
PAGE = Path("docs/performance.md")
BEGIN, END = "<!-- made by benchmarks.report: begin -->", "<!-- end -->"
NOTHING = "–"
MACHINE = {"memory_read": "reading memory, as many bytes as the weights", "gemm": "matrix product"}
DISTURBED_CORES = 0.05
SPECULATION = {"speculate_repeat": "repeats its prompt", "speculate_plain": "free prose"}


@dataclass(frozen=True)
class Column:
    """One workload of the table."""

    workload: str
    title: str
    show: Callable[[float], str]


COLUMNS = (
    Column("ready", "start → first token (s)", "{:.2f}".format),
    Column("ttft", "first token, 128 in (s)", "{:.3f}".format),
    Column("decode_1", "decode, 1 stream (tok/s)", "{:.1f}".format),
    Column("throughput_8", "8 streams (tok/s)", "{:.0f}".format),
    Column("throughput_32", "32 streams (tok/s)", "{:.0f}".format),
    Column("throughput_64", "64 streams (tok/s)", "{:.0f}".format),
    Column("prefill_1024", "prefill 1024 (tok/s)", "{:.0f}".format),
    Column("perplexity", "perplexity", "{:.3f}".format),
    Column("memory", "peak memory (MB)", lambda value: f"{value / 1e6:.0f}"),
    Column("energy", "energy (J/token)", "{:.3f}".format),
)
Cells = list[str]


def main() -> int:
    write_page(PAGE, *read_result(LATEST))
    return 0


def read_result(path: Path) -> tuple[list[Row], dict[str, Any]]:
    """The rows, and the circumstances from beside them."""
    return read_rows(path), json.loads(meta_path(path).read_text())


def write_page(page: Path, rows: Sequence[Row], meta: Mapping[str, Any]) -> None:
    """Put the tables into a page. Raises ValueError when it has no place for them."""
    page.write_text(spliced(page.read_text(), markdown(rows, meta)))


def meta_path(result: Path) -> Path:
    """Where the circumstances of a result are kept."""
    return result.with_suffix(".meta.json")


def table(
    rows: Sequence[Row], states: Mapping[str, Mapping[str, Any]]
) -> tuple[Cells, list[Cells]]:
    """Head and lines: the systems in the order of `states`, then the bound by precision."""
    columns = [column for column in COLUMNS if any(row.workload == column.workload for row in rows)]
    lines = []
    for system, state in states.items():
        if any(row.system == system and row.workload in SPECULATION for row in rows):
            continue
        cells = [_cell(rows, system, column) for column in columns]
        if columns and state["state"] != "measured" and set(cells) == {NOTHING}:
            cells = [state["state"], *[""] * (len(columns) - 1)]
        lines.append([system, str(state["precision"]), *cells])
    for precision in dict.fromkeys(row.precision for row in rows if row.system == SYSTEM):
        own = [row for row in rows if row.precision == precision and row.system == SYSTEM]
        cells = [_cell(own, SYSTEM, column) for column in columns]
        if any(cell != NOTHING for cell in cells):
            lines.append([SYSTEM, precision, *cells])
    return ["system", "precision", *(column.title for column in columns)], lines


def speculation_table(rows: Sequence[Row]) -> tuple[Cells, list[Cells]]:
    """Decoding with and without guessing, and how many times faster guessing is."""
    systems = list(dict.fromkeys(row.system for row in rows if row.workload in SPECULATION))
    lines = []
    for on in (name for name in systems if name.endswith(" on")):
        for workload, text in SPECULATION.items():
            with_it = find(rows, on, workload)
            without = find(rows, on.removesuffix(" on") + " off", workload)
            if with_it is None or without is None:
                continue
            times = f"{with_it.value / without.value:.2f}"
            lines.append([text, f"{without.value:.1f}", f"{with_it.value:.1f}", times])
    return ["text", "without (tok/s)", "with speculation (tok/s)", "times"], lines


def machine_table(rows: Sequence[Row]) -> tuple[Cells, list[Cells]]:
    """What the bounds were made of."""
    found = [row for row in rows if row.system == SYSTEM and row.workload in MACHINE]
    lines = [[MACHINE[row.workload], row.precision, f"{row.value:.1f} {row.unit}"] for row in found]
    return ["measured on the machine", "for", "value"], lines


def remarks(meta: Mapping[str, Any]) -> list[str]:
    """What a reader must know beside the figures: who is missing, who failed, what disturbed."""
    found = []
    for name, state in meta["systems"].items():
        if state["state"] != "measured":
            found.append(f"{name} is {state['state']}: {state['why']}")
        found += [f"{name}: {note}" for note in state.get("notes", [])]
        if state.get("others_cores", 0.0) > DISTURBED_CORES:
            found.append(
                f"{name}: other processes took {state['others_cores']:.2f} cores meanwhile, so its "
                "figures are lower than on a quiet machine"
            )
    if not meta["energy"]:
        found.append("energy is absent: this machine has no RAPL counters that can be read")
    return found


def markdown(rows: Sequence[Row], meta: Mapping[str, Any]) -> str:
    """The generated part of the page."""
    machine = meta["hardware"]
    parts = [
        f"{meta['date'][:10]}, {machine['cpu']}, {machine['cores']} cores "
        f"({', '.join(machine['instructions'])}), {machine['memory_gib']} GiB; "
        f"`{meta['command']}`.",
        _markdown_table(*table(rows, meta["systems"])),
    ]
    for head, lines in (speculation_table(rows), machine_table(rows)):
        if lines:
            parts.append(_markdown_table(head, lines))
    parts.append("\n".join(f"- {remark}" for remark in remarks(meta)))
    return "\n\n".join(part for part in parts if part)


def spliced(page: str, made: str) -> str:
    """The page with its generated part replaced. Raises ValueError without the two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no {BEGIN!r} followed by {END!r}")
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def show(rows: Sequence[Row], meta: Mapping[str, Any]) -> None:
    """Print all tables."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    found = (table(rows, meta["systems"]), speculation_table(rows), machine_table(rows))
    for head, lines in found:
        if lines:
            shown = Table(*head)
            for line in lines:
                shown.add_row(*line)
            console.print(shown)
    for remark in remarks(meta):
        console.print(f"- {remark}", markup=False, highlight=False)


def _cell(rows: Sequence[Row], system: str, column: Column) -> str:
    row = find(rows, system, column.workload)
    if row is None:
        return NOTHING
    share = find(rows, system, column.workload + OF_BOUND)
    return column.show(row.value) + (f" ({share.value:.0%})" if share is not None else "")


def _markdown_table(head: Cells, lines: Sequence[Cells]) -> str:
    rule = ["---"] * len(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])


if __name__ == "__main__":
    sys.exit(main())
