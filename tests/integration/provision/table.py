"""`python -m tests.integration.provision.table`: write what was shown of each provisioner.

The outcomes are those of the last sessions over tests/integration/provision, in one process each.
"""

from __future__ import annotations

import json
from typing import Any

from tests.integration.provision.shown import CASES, KEPT
from tests.pages import cached, row, write_part

PLACES = ("local", "ray", "aws")


def table(shown: dict[str, Any]) -> str:
    """In Markdown: a row for each case, and under it why one is not shown somewhere."""
    reasons: list[str] = []
    lines = [row(["case", *PLACES]), row(["---"] * (1 + len(PLACES)))]
    lines.append(row(["*stands on*", *(_of(shown, place, "stands_on") for place in PLACES)]))
    for case in CASES:
        outcomes = [shown.get(place, {}).get("cases", {}).get(case) for place in PLACES]
        cells = [_cell(outcome, reasons) for outcome in outcomes]
        lines.append(row([case.removeprefix("test_").replace("_", " "), *cells]))
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


def main() -> None:
    made = table(json.loads(cached(KEPT).read_text()))
    write_part("provisioners.md", "tests.integration.provision.table", made)


if __name__ == "__main__":
    main()
