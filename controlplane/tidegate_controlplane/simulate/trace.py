"""Traces of requests: recorded ones from JSONL, synthetic ones from a description."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate_controlplane.errors import BadTrace

FIELDS = ("at_s", "prompt_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: when it comes, and how long it is."""

    at_s: float
    prompt_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.output_tokens


def read_trace(path: Path) -> list[Arrival]:
    """The requests of a JSONL file in order of time, the first one at its own `at_s`.

    Raises BadTrace naming the line and the field.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise BadTrace(
            f"--trace: cannot read {str(path)!r} ({why}); give a JSONL file, or a shape: bursty, "
            "diurnal or poisson, with :name=value,…"
        ) from None
    found = [_arrival(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise BadTrace(f"--trace: {str(path)!r} holds no request; one JSON object a line is wanted")
    return sorted(found, key=lambda arrival: arrival.at_s)


def _arrival(number: int, line: str) -> Arrival:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise BadTrace(f"line {number}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise BadTrace(f"line {number}: {line[:80]!r} is no object with {', '.join(FIELDS)}")
    unknown = sorted(row.keys() - set(FIELDS))
    if unknown:
        raise BadTrace(f"line {number}: {unknown[0]}: unknown; a request has {', '.join(FIELDS)}")
    return Arrival(
        at_s=_number(number, row, "at_s", least=0.0),
        prompt_tokens=_count(number, row, "prompt_tokens", least=1),
        output_tokens=_count(number, row, "output_tokens", least=0),
    )


def _number(number: int, row: dict[str, Any], name: str, least: float) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
        raise BadTrace(f"line {number}: {name}: {value!r} is not a number of {least:g} or more")
    if value == float("inf"):
        raise BadTrace(f"line {number}: {name}: must be finite")
    return float(value)


def _count(number: int, row: dict[str, Any], name: str, least: int) -> int:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadTrace(f"line {number}: {name}: {value!r} is not a whole number of {least} or more")
    return value
