"""What a command says: lines as they come, or one JSON object at its end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import typer

from tidegate_infra.policy.at_rest import Prices, at_rest
from tidegate_infra.policy.declared import Declared
from tidegate_infra.policy.finding import Finding


class Output:
    """Where the lines of one command go."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._told: list[str] = []

    def tell(self, line: str) -> None:
        """Say a line now, or keep it for `told` of the object."""
        if self._as_json:
            self._told.append(line)
        else:
            typer.echo(line)

    def end(self, line: str | None = None, **result: Any) -> None:
        """The result: `line` for people, the rest for machines."""
        if self._as_json:
            typer.echo(json.dumps({**result, "told": self._told}, indent=2, ensure_ascii=False))
        elif line is not None:
            typer.echo(line)


def plan_facts(
    resources: Sequence[Declared], findings: Sequence[Finding], prices: Prices
) -> dict[str, Any]:
    """A plan as JSON has it; money is USD a month at rest, null where a price is not known."""
    return {
        "resources": [
            {"type": each.type, "name": each.name, "parent": each.parent, "inputs": each.inputs}
            for each in resources
        ],
        "at_rest": [
            {
                "resource": running.resource.key,
                "unit": running.unit,
                "count": running.count,
                "usd_per_month": _cents(running.monthly_usd(prices)),
            }
            for running in at_rest(resources)
        ],
        "findings": [vars(finding) for finding in findings],
    }


def _cents(usd: float | None) -> float | None:
    return None if usd is None else round(usd, 2)


def say_error(error: Exception, *, as_json: bool) -> None:
    """An expected error on standard error, a line each, without a traceback."""
    if as_json:
        facts = {"type": type(error).__name__, "message": str(error)}
        typer.echo(json.dumps({"error": facts}, ensure_ascii=False), err=True)
        return
    for line in str(error).splitlines():
        typer.echo(f"error: {line}", err=True)
