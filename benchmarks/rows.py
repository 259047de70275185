"""The result: a list of rows, one figure each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One figure of one system, named so that it can be found again."""

    system: str
    workload: str
    metric: str
    value: float
    unit: str
    precision: str


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """A JSON list with one row a line, so that two runs can be compared as text."""
    lines = ",\n".join("  " + json.dumps(asdict(row)) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[\n{lines}\n]\n")


def read_rows(path: Path) -> list[Row]:
    """Rows as written. Raises TypeError when a row has other fields."""
    return [Row(**row) for row in json.loads(path.read_text())]


def find(rows: Iterable[Row], system: str, workload: str, metric: str | None = None) -> Row | None:
    """The row of a figure, by its metric where a workload has several."""
    for row in rows:
        if (row.system, row.workload) == (system, workload) and metric in (None, row.metric):
            return row
    return None
