"""A declaration as Pulumi's properties: camelCase for every field, and `off` where None counts.

Names of users' own (labels, adapters) stay as they are. Pulumi drops a property that is null, so a
field in which null means something else than its absence says `off` instead.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from tidegate.spec import SpecIssue
from tidegate_infra.provider.shapes import Shape, can_be_off

OFF = "off"
_SNAKE = re.compile(r"\b[a-z0-9]+(?:_[a-z0-9]+)+\b")
_IDENTIFIER = re.compile(r"^[A-Za-z_$][A-Za-z0-9_$]*$")


def camel(name: str) -> str:
    """`idle_timeout_s` as `idleTimeoutS`."""
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


def to_fields(value: Any, shape: Shape) -> Any:
    """Properties as the fields of a declaration. Unknown names stay, for the declaration to refuse.

    A name that only the declaration's own spelling has is no property: see `misspelt`.
    """
    if isinstance(value, Mapping) and shape.model:
        fields = {camel(name): name for name in shape.model.model_fields}
        named = [(fields.get(key) or str(key), each) for key, each in value.items()]
        return {name: _field(each, shape, name) for name, each in named}
    return _inside(value, shape, to_fields)


def to_properties(value: Any, shape: Shape) -> Any:
    """The fields of a declaration as properties, without those that are absent."""
    if isinstance(value, Mapping) and shape.model:
        return dict(_properties(value, shape))
    return _inside(value, shape, to_properties)


def misspelt(value: Any, shape: Shape, path: str = "") -> Iterator[SpecIssue]:
    """Properties in the declaration's own spelling, which would else be taken for fields."""
    if isinstance(value, Mapping) and shape.model:
        by_camel = {camel(name): name for name in shape.model.model_fields}
        for key, each in value.items():
            place = f"{path}.{key}" if path else key
            if key not in by_camel and key in shape.model.model_fields:
                near = difflib.get_close_matches(key, by_camel, n=1, cutoff=0)
                yield SpecIssue(place, each, f"unknown field; did you mean '{near[0]}'?")
            elif inner := shape.field(by_camel.get(key) or str(key)):
                yield from misspelt(each, inner, place)
    elif isinstance(value, Mapping) and shape.values:
        for key, each in value.items():
            yield from misspelt(each, shape.values, f"{path}.{key}")
    elif isinstance(value, list | tuple) and shape.items:
        for index, each in enumerate(value):
            yield from misspelt(each, shape.items, f"{path}.{index}")


def property_path(field: str, shape: Shape) -> str:
    """`scaling.schedule.0.min_replicas` as Pulumi writes it: `scaling.schedule[0].minReplicas`."""
    path, here = "", shape
    for part in field.split("."):
        inner = here.field(part)
        if inner:
            path += f".{camel(part)}"
        elif here.items and part.isdigit():
            path, inner = f"{path}[{part}]", here.items
        else:
            path += f".{part}" if _IDENTIFIER.match(part) else f'["{part}"]'
            inner = here.values
        here = inner or Shape()
    return path.removeprefix(".")


def in_properties(text: str, model: type[BaseModel]) -> str:
    """A sentence about fields as one about properties."""
    known = _field_names(model)
    return _SNAKE.sub(lambda found: camel(found[0]) if found[0] in known else found[0], text)


def _field(value: Any, shape: Shape, name: str) -> Any:
    found = shape.model.model_fields.get(name) if shape.model else None
    if found is not None and value == OFF and can_be_off(found):
        return None
    return to_fields(value, shape.field(name) or Shape())


def _properties(value: Mapping[str, Any], shape: Shape) -> Iterator[tuple[str, Any]]:
    assert shape.model
    for name, each in value.items():
        if each is not None:
            yield camel(name), to_properties(each, shape.field(name) or Shape())
        elif can_be_off(shape.model.model_fields[name]):
            yield camel(name), OFF


def _inside(value: Any, shape: Shape, convert: Any) -> Any:
    if isinstance(value, Mapping) and shape.values:
        return {key: convert(each, shape.values) for key, each in value.items()}
    if isinstance(value, list | tuple) and shape.items:
        return [convert(each, shape.items) for each in value]
    return value


@cache
def _field_names(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(_names(Shape(model=model)))


def _names(shape: Shape) -> Iterator[str]:
    for inner in (shape.items, shape.values):
        if inner:
            yield from _names(inner)
    for name in shape.model.model_fields if shape.model else ():
        yield name
        inner = shape.field(name)
        if inner:
            yield from _names(inner)
