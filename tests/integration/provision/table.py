"""`python -m tests.integration.provision.table`: write what was shown of each provisioner.

The outcomes are those of the last sessions over tests/integration/provision, in one process each.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.integration.provision.shown import CASES, KEPT

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "provisioners.md"
OUTCOMES = ROOT / ".pytest_cache" / "v" / KEPT
PLACES = ("local", "ray", "aws")
BEGIN, END = (
    "<!-- made by tests.integration.provision.table: begin -->",
    "<!-- made by tests.integration.provision.table: end -->",
)


def table(shown: dict[str, Any]) -> str:
    """In Markdown: a row for each case, and under it why one is not shown somewhere."""
    reasons: list[str] = []
    lines = [_line(["case", *PLACES]), _line(["---"] * (1 + len(PLACES)))]
    lines.append(_line(["*stands on*", *(_of(shown, place, "stands_on") for place in PLACES)]))
    for case in CASES:
        outcomes = [shown.get(place, {}).get("cases", {}).get(case) for place in PLACES]
        cells = [_cell(outcome, reasons) for outcome in outcomes]
        lines.append(_line([case.removeprefix("test_").replace("_", " "), *cells]))
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, "", *notes]).rstrip()


def _of(shown: dict[str, Any], place: str, key: str) -> str:
    return str(shown.get(place, {}).get(key, "–"))


def _cell(outcome: str | None, reasons: list[str]) -> str:
    if outcome in (None, "passed", "failed"):
        return {"passed": "yes", "failed": "**no**"}.get(str(outcome), "–")
    if outcome not in reasons:
        reasons.append(str(outcome))
    return f"note {reasons.index(str(outcome)) + 1}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    made = table(json.loads(OUTCOMES.read_text()))
    PAGE.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}")


if __name__ == "__main__":
    main()
