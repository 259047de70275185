"""A row as the body of a request: by one column, or by a template. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.errors import TableError
from tidegate.protocol.batch import RowTerms
from tidegate.tables.base import Answered, Row

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
_PLACE = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")


class RowError(TableError):
    """One row cannot be a request; the others can."""


@dataclass(frozen=True)
class RowRequest:
    """How the rows of one batch become requests."""

    template: Mapping[str, Any]
    id_column: str | None
    columns: tuple[str, ...]
    """Those that a row must have."""

    def body(self, row: Row | None) -> dict[str, Any]:
        """Raises RowError for a row that lacks a value."""
        if row is None:
            raise RowError("not a JSON object")
        filled = _filled(self.template, row)
        assert isinstance(filled, dict)
        return filled

    def custom_id(self, row: Row | None, number: int) -> str:
        """What the row calls itself, else its number from 1."""
        if self.id_column is None or row is None:
            return f"row-{number}"
        return _text(row, self.id_column)


def row_request(wanted: RowTerms, endpoint: str) -> RowRequest:
    """Raises TableError when it does not say what to ask, or of which model."""
    if endpoint not in (CHAT, COMPLETIONS, EMBEDDINGS):
        raise TableError(
            f"endpoint: {endpoint!r} does not answer a row with one cell; send a file of lines"
        )
    if (wanted.column is None) == (wanted.template is None):
        raise TableError("column: give exactly one of 'column' and 'template'")
    template = wanted.template
    if template is None:
        template = _usual(endpoint, "{{" + str(wanted.column) + "}}")
    if "model" in template and wanted.model is not None:
        raise TableError("model: the template names one already")
    if wanted.model is not None:
        template = {"model": wanted.model, **template}
    if "model" not in template:
        raise TableError("model: give the name of a deployment")
    used = [*_places(template), *([wanted.id_column] if wanted.id_column else [])]
    if wanted.template is not None and not list(_places(template)):
        raise TableError("template: no text in it has a {{column}}, so all rows would be alike")
    return RowRequest(template, wanted.id_column, tuple(dict.fromkeys(used)))


def answered(response: Mapping[str, Any]) -> Answered:
    """The columns that a model's answer fills."""
    usage = response.get("usage") or {}
    return Answered(
        answer=_said(response),
        prompt_tokens=usage.get("prompt_tokens"),
        completion_tokens=usage.get("completion_tokens"),
    )


def _said(response: Mapping[str, Any]) -> str | list[float] | None:
    if data := response.get("data"):
        vector: list[float] | str = data[0]["embedding"]
        return vector
    choices = response.get("choices") or [{}]
    message = choices[0].get("message") or {}
    found = message.get("content", choices[0].get("text"))
    return None if found is None else str(found)


def _usual(endpoint: str, prompt: str) -> dict[str, Any]:
    if endpoint == CHAT:
        return {"messages": [{"role": "user", "content": prompt}]}
    return {"prompt" if endpoint == COMPLETIONS else "input": prompt}


def _places(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _PLACE.findall(value)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _places(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _places(inner)


def _filled(value: Any, row: Row) -> Any:
    if isinstance(value, str):
        return _PLACE.sub(lambda place: _text(row, place[1]), value)
    if isinstance(value, Mapping):
        return {name: _filled(inner, row) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, row) for inner in value]
    return value


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    if value is None:
        raise RowError(f"the column {column!r} has no value")
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
