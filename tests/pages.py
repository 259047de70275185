"""Tables that tests write into the documentation, each between two marks of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]


def row(cells: Sequence[str]) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def write_part(page: str, made_by: str, text: str) -> None:
    """Put `text` into `docs/<page>`, between the marks that name the module `made_by`."""
    path = ROOT / "docs" / page
    begin, end = (f"<!-- made by {made_by}: {mark} -->" for mark in ("begin", "end"))
    before, rest = path.read_text().split(begin)
    after = rest.split(end)[1]
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def cached(key: str) -> Path:
    """What a session left under `key` in pytest's cache."""
    return ROOT / ".pytest_cache" / "v" / key
