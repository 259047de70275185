"""What a JSON schema may say: every keyword is one that is kept, or it is refused by name.

The keywords are those of JSON Schema, draft 2020-12 (`definitions` of draft 7 too), and of them
what llguidance follows exactly. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.grammar.keywords import wrong_value

MAX_DEPTH = 32

ANNOTATIONS = frozenset(
    {
        *("$anchor", "$comment", "$id", "$schema", "default", "deprecated", "description"),
        *("discriminator", "example", "examples", "readOnly", "title", "writeOnly"),
    }
)
"""They say something about a value and nothing of what it may be."""
ENFORCED = frozenset(
    {
        *("$ref", "additionalItems", "additionalProperties", "allOf", "anyOf", "const", "enum"),
        *("exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maxLength"),
        *("maxProperties", "maximum", "minItems", "minLength", "minProperties", "minimum"),
        *("multipleOf", "oneOf", "pattern", "patternProperties", "prefixItems", "properties"),
        *("required", "type"),
    }
)
DEFINITIONS = frozenset({"$defs", "definitions"})
FORMATS = frozenset(
    {
        *("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri"),
        "uuid",
    }
)
_LISTS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_MAPS = frozenset({"patternProperties", "properties"}) | DEFINITIONS
_SINGLE = frozenset({"additionalItems", "additionalProperties", "items"})


class Place(NamedTuple):
    """A schema within the schema, and where it stands (a JSON pointer)."""

    schema: Any
    pointer: str


def check_schema(schema: Any, param: str, *, lenient: bool = False) -> None:
    """Raises RequestRefused for what is no schema, too deep, or cannot be kept; the last only when
    not `lenient`.
    """
    check_depth(schema, param)
    for place in places(schema):
        if isinstance(place.schema, bool):
            continue
        if not isinstance(place.schema, dict):
            _refuse(
                place, param, f"{place.schema!r:.40} is no schema; write an object or a boolean"
            )
        if not lenient:
            _check_keywords(place, param)
        if (wrong := wrong_value(place.schema)) is not None:
            keyword, wanted = wrong
            value = place.schema[keyword]
            _refuse(place, param, f"{keyword!r} must be {wanted}, got {value!r:.60}")


def check_depth(schema: Any, param: str) -> None:
    """Raises RequestRefused when lists and objects are nested too deep."""
    level = [schema]
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    raise RequestRefused(
        f"{param}: the schema is nested deeper than {MAX_DEPTH} levels; move parts into '$defs' "
        "and name them with '$ref'.",
        param=param,
        code="schema_too_complex",
    )


def places(schema: Any) -> Iterator[Place]:
    """The schema itself and every one within it, wherever a keyword holds schemas."""
    waiting = [Place(schema, "")]
    while waiting:
        place = waiting.pop()
        yield place
        if isinstance(place.schema, dict):
            waiting += _within(place)


def _within(place: Place) -> Iterator[Place]:
    for keyword, value in place.schema.items():
        pointer = f"{place.pointer}/{keyword}"
        if keyword in _SINGLE and not isinstance(value, list):
            yield Place(value, pointer)
        elif keyword in _LISTS | _SINGLE and isinstance(value, list):
            yield from (Place(item, f"{pointer}/{at}") for at, item in enumerate(value))
        elif keyword in _MAPS and isinstance(value, dict):
            yield from (Place(item, f"{pointer}/{_escaped(name)}") for name, item in value.items())


def _check_keywords(place: Place, param: str) -> None:
    for keyword in place.schema:
        if keyword not in ENFORCED | ANNOTATIONS | DEFINITIONS:
            _refuse(place, param, f"the keyword {keyword!r:.60} is not supported; remove it")
    wanted = place.schema.get("format")
    if wanted is not None and wanted not in FORMATS:
        known = ", ".join(sorted(FORMATS))
        _refuse(place, param, f"the format {wanted!r:.60} is not one of {known}; use 'pattern'")


def _refuse(place: Place, param: str, why: str) -> NoReturn:
    where = f" at {place.pointer}" if place.pointer else ""
    raise RequestRefused(f"{param}{where}: {why}.", param=param, code="invalid_schema")


def _children(value: Any) -> list[Any]:
    inside = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list):
        return []
    return [child for child in inside if isinstance(child, dict | list)]


def _escaped(name: str) -> str:
    """As a JSON pointer has it (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
