"""Whether a recursive schema ever ends: a tree does, a list whose every element needs a next one
does not; and one that could end only where nothing is allowed does not either.

A schema is finite when some value of finite size satisfies it. Found as the least fixed point over
all schemas of the text, as the productive symbols of a context-free grammar are (Hopcroft and
Ullman 1979), by what a schema cannot do without: its `$ref`, every one of `allOf`, one of `anyOf`
and `oneOf`, the required properties, the first `minItems` items. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.grammar.schema import places

_ROUNDS = 64
"""A schema that is not settled by then is believed: at worst its text ends with `max_tokens`."""
_SHOWN = 3
_BOUNDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "string": (("minLength", "maxLength"),),
    "array": (("minItems", "maxItems"),),
    "object": (("minProperties", "maxProperties"),),
    "integer": (("minimum", "maximum"),),
    "number": (("minimum", "maximum"),),
}
"""Least and most of what a value of a type may have."""
_NAMED = 100
"""Of items that must be there, as many are looked at one by one."""


def check_ends(schema: Any, param: str) -> None:
    """Raises RequestRefused for a schema that only values without end would satisfy."""
    # The inner ones first, so that only what `$ref` leads to takes another round.
    known = dict(reversed([(place.pointer, place.schema) for place in places(schema)]))
    if "" not in _finite(known, frozenset()):
        raise RequestRefused(
            f"{param}: no value satisfies it, since its '$ref' leads round without an end; make "
            "the property or item optional that leads back.",
            param=param,
            code="invalid_schema",
        )
    if not any(isinstance(part, dict) and "$ref" in part for part in known.values()):
        return  # the compiler says of each keyword why nothing satisfies it
    empty = frozenset(pointer for pointer, part in known.items() if is_empty(part))
    if empty and "" not in _finite(known, empty):
        raise RequestRefused(
            f"{param}: no value satisfies it, since nothing satisfies what it needs at "
            f"{' or '.join(sorted(repr(pointer) for pointer in empty)[:_SHOWN])}; correct that.",
            param=param,
            code="invalid_schema",
        )


def _finite(known: dict[str, Any], empty: frozenset[str]) -> set[str]:
    """The schemas that some value of finite size satisfies, given some that none does."""
    finite: set[str] = set()
    for _ in range(_ROUNDS):
        before = len(finite)
        for pointer, part in known.items():
            if pointer in finite or pointer in empty:
                continue
            if _is_finite(part, pointer, known, finite):
                finite.add(pointer)
        if len(finite) == before:
            return finite
    return {""}


def is_empty(schema: Any) -> bool:
    """Whether plainly no value satisfies a schema. What is less plain is left to the compiler,
    which leaves such a schema out where there is another choice.
    """
    if not isinstance(schema, dict):
        return schema is False
    if any(schema.get(keyword) == [] for keyword in ("enum", "anyOf", "oneOf")):
        return True
    if {"const", "enum"} & schema.keys():
        return False
    bounds = _BOUNDS.get(str(schema.get("type")), ())
    return any(_number(schema, low) > _number(schema, high) for low, high in bounds)


def _number(schema: dict[str, Any], keyword: str) -> float:
    """A bound; not a number, which is over and under nothing, where there is none."""
    value = schema.get(keyword)
    return value if isinstance(value, int | float) else math.nan


def _is_finite(schema: Any, pointer: str, known: dict[str, Any], finite: set[str]) -> bool:
    if not isinstance(schema, dict):
        return True
    needed = [f"{pointer}/allOf/{at}" for at in range(len(_list(schema, "allOf")))]
    if isinstance(target := schema.get("$ref"), str) and target.startswith("#"):
        needed.append(target.removeprefix("#"))
    if not {"const", "enum"} & schema.keys():
        needed += _parts(schema, pointer)
    # What is no part of the text is left to the compiler, which says that it is missing.
    if any(part in known and part not in finite for part in needed):
        return False
    return all(
        any(f"{pointer}/{keyword}/{at}" in finite for at in range(len(schema[keyword])))
        for keyword in ("anyOf", "oneOf")
        if _list(schema, keyword)
    )


def _parts(schema: dict[str, Any], pointer: str) -> list[str]:
    """What every object or array of the schema holds; nothing, where it may be something else."""
    if schema.get("type") == "object":
        names = [name for name in _list(schema, "required") if isinstance(name, str)]
        return [
            f"{pointer}/properties/{name.replace('~', '~0').replace('/', '~1')}" for name in names
        ]
    if schema.get("type") == "array":
        least = schema.get("minItems", 0)
        count = min(least, _NAMED) if isinstance(least, int) else 0
        first = [f"{pointer}/prefixItems/{at}" for at in range(count)]
        beyond = count > len(_list(schema, "prefixItems"))
        return [*first, *([f"{pointer}/items"] if beyond else [])]
    return []


def _list(schema: dict[str, Any], keyword: str) -> list[Any]:
    value = schema.get(keyword)
    return value if isinstance(value, list) else []
