"""What commands say: tables and text for people, JSON for machines, errors for both."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

from tidegate.errors import APIError, DeploymentFailed, TidegateError

if TYPE_CHECKING:
    from rich.console import Console

_JSON = "tidegate.json"
PIPE_WIDTH = 200
"""Columns when the output is no terminal, so that nothing is cut."""


def remember_json(ctx: typer.Context, value: bool) -> bool:
    """The callback of `--json`: errors shall be JSON too."""
    ctx.meta[_JSON] = value
    return value


def wants_json(ctx: Any) -> bool:
    """Whether `--json` was given."""
    return bool(ctx.meta.get(_JSON))


def console(*, stderr: bool = False) -> Console:
    """The terminal as it is now."""
    from rich.console import Console

    screen = Console(stderr=stderr, highlight=False)
    return (
        screen if screen.is_terminal else Console(stderr=stderr, highlight=False, width=PIPE_WIDTH)
    )


def say(text: str) -> None:
    """A line on standard output."""
    typer.echo(text)


def note(text: str) -> None:
    """A line on standard error: for the reader, not for the next program."""
    typer.echo(text, err=True)


def write(text: str) -> None:
    """Text as it comes, without a line's end."""
    sys.stdout.write(text)
    sys.stdout.flush()


def say_json(value: Any, *, one_line: bool = False) -> None:
    """JSON on standard output; pydantic models and lists of them are understood."""
    typer.echo(_encoded(value, None if one_line else 2))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """A table on standard output, or the sentence `empty` on standard error."""
    from rich.table import Table

    filled = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        filled.add_column(column.upper(), overflow="fold")
    for row in rows:
        filled.add_row(*("" if cell is None else _escaped(cell) for cell in row))
    if filled.row_count:
        console().print(filled)
    else:
        note(empty)


def report(error: TidegateError, *, as_json: bool) -> None:
    """Say an error on standard error."""
    if as_json:
        typer.echo(_encoded({"error": _facts(error)}, None), err=True)
        return
    if isinstance(error, APIError) and len(error.issues) > 1:
        faults = "".join(f"\n  {issue.field}: {issue.message}" for issue in error.issues)
        typer.echo(f"error: the declaration has {len(error.issues)} faults{faults}", err=True)
    else:
        typer.echo(f"error: {error}", err=True)
    for addition in getattr(error, "__notes__", []):
        typer.echo(f"  {addition}", err=True)
    if isinstance(error, APIError) and error.status >= 500 and error.request_id:
        typer.echo(f"  request id: {error.request_id}", err=True)


def _facts(error: TidegateError) -> dict[str, Any]:
    facts: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, DeploymentFailed):
        facts["reason"] = error.reason
    if isinstance(error, APIError):
        facts |= {"status": error.status, "code": error.code, "request_id": error.request_id}
        facts["issues"] = [vars(issue) for issue in error.issues]
    return facts


def _encoded(value: Any, indent: int | None) -> str:
    return json.dumps(value, default=_plain, indent=indent, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return str(value)


def _escaped(cell: Any) -> str:
    from rich.markup import escape

    return escape(str(cell))
