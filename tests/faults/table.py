"""`python -m tests.faults.table`: write the fault matrix of the last session into its page.

The figures are those that the last `make soak` left in pytest's cache.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.faults.matrix import ROWS
from tests.faults.mutations import MUTATIONS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
FIGURES = ROOT / ".pytest_cache" / "v" / "tidegate" / "faults"
BEGIN, END = (
    "<!-- made by tests.faults.table: begin -->",
    "<!-- made by tests.faults.table: end -->",
)


def table(figures: dict[str, dict[str, int]]) -> str:
    """In Markdown; a row that did not run has no figures."""
    head = ["fault", "promise", "how injected", "runs", "accepted", "lost", "doubled", "fails when"]
    lines = [_line(head), _line(["---"] * len(head))]
    for key, row in ROWS.items():
        found = figures.get(key, {})
        broken = "; ".join(each.what for each in MUTATIONS if each.row == key)
        sums = [str(found.get(name, "–")) for name in ("runs", "accepted", "lost", "doubled")]
        lines.append(_line([row.fault, row.promise, row.injected, *sums, broken]))
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    made = table(json.loads(FIGURES.read_text()))
    PAGE.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}")


if __name__ == "__main__":
    main()
