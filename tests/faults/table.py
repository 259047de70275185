"""`python -m tests.faults.table`: write the fault matrix of the last session into its page.

The figures are those that the last `make soak` left in pytest's cache.
"""

from __future__ import annotations

import json

from tests.faults.matrix import ROWS
from tests.faults.mutations import MUTATIONS
from tests.pages import cached, row, write_part


def table(figures: dict[str, dict[str, int]]) -> str:
    """In Markdown; a row that did not run has no figures."""
    head = ["fault", "promise", "how injected", "runs", "accepted", "lost", "doubled", "fails when"]
    lines = [row(head), row(["---"] * len(head))]
    for key, each in ROWS.items():
        found = figures.get(key, {})
        broken = "; ".join(mutation.what for mutation in MUTATIONS if mutation.row == key)
        sums = [str(found.get(name, "–")) for name in ("runs", "accepted", "lost", "doubled")]
        lines.append(row([each.fault, each.promise, each.injected, *sums, broken]))
    return "\n".join(lines)


def main() -> None:
    made = table(json.loads(cached("tidegate/faults").read_text()))
    write_part("reliability.md", "tests.faults.table", made)


if __name__ == "__main__":
    main()
