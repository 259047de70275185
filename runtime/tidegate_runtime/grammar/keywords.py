"""What kind of value each keyword of a JSON schema takes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


class Kind(NamedTuple):
    """What a value must be, in words, and whether it is."""

    words: str
    holds: Callable[[Any], bool]


def wrong_value(schema: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first keyword whose value is of another kind, and what it must be."""
    for keyword, value in schema.items():
        kind = _KINDS.get(keyword)
        if kind is not None and not kind.holds(value):
            return keyword, kind.words
    return None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_type(value: Any) -> bool:
    return value in TYPES if isinstance(value, str) else _is_array_of(value, _is_type_name)


def _is_type_name(value: Any) -> bool:
    return isinstance(value, str) and value in TYPES


def _is_array_of(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(holds, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_bound(value: Any) -> bool:
    """A number, or as draft 4 has it whether the bound beside it is left out."""
    return isinstance(value, int | float)


_TEXT = Kind("a string", _is_text)
_ARRAY = Kind("an array", lambda value: isinstance(value, list))
_OBJECT = Kind("an object", lambda value: isinstance(value, dict))
_COUNT = Kind("an integer, 0 or more", _is_count)
_NUMBER = Kind("a number", _is_number)
_KINDS = {
    "type": Kind(f"one of {', '.join(TYPES)}, or an array of them", _is_type),
    "required": Kind("an array of strings", lambda value: _is_array_of(value, _is_text)),
    **dict.fromkeys(("$ref", "format", "pattern"), _TEXT),
    **dict.fromkeys(("allOf", "anyOf", "enum", "oneOf", "prefixItems"), _ARRAY),
    **dict.fromkeys(("$defs", "definitions", "patternProperties", "properties"), _OBJECT),
    **dict.fromkeys(("maxItems", "maxLength", "maxProperties"), _COUNT),
    **dict.fromkeys(("minItems", "minLength", "minProperties"), _COUNT),
    **dict.fromkeys(("maximum", "minimum", "multipleOf"), _NUMBER),
    **dict.fromkeys(("exclusiveMaximum", "exclusiveMinimum"), Kind("a number", _is_bound)),
}
