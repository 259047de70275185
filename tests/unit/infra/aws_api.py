"""Holds a declaration against the API that it ends in: botocore's model of the request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import botocore.session
import regex
from botocore.model import ListShape, MapShape, Shape, StructureShape
from tests.unit.infra.aws_requests import APIS, AUTOMATIC, Api

from tidegate_infra.policy.declared import SECRET, Declared, as_list


def faults(declared: Declared) -> Iterator[str]:
    """What the API would refuse of a resource: unknown and missing members, and bad values."""
    api = APIS[declared.type]
    inputs = _flat(declared.inputs, api)
    said = {key: inputs[key] for key in inputs if key not in api.elsewhere and inputs[key] != {}}
    name = said.pop("name", said.get(_uncapital(api.name), declared.name + AUTOMATIC))
    request = {api.spelt.get(key, key): value for key, value in said.items()}
    if api.name is not None:
        request[_uncapital(api.name)] = name
    request = _nested(request)
    for fault in _of(_request(api.service, api.operation), request, "", api):
        yield f"{declared}: {fault}"


def _flat(inputs: Mapping[str, Any], api: Api) -> dict[str, Any]:
    """With the members of a property beside it, where the request has them apart."""
    outer = {path.partition(".")[0] for path in api.spelt if "." in path} & inputs.keys()
    apart = {name for name in outer if all(f"{name}.{key}" in api.spelt for key in inputs[name])}
    found = {key: value for key, value in inputs.items() if key not in apart}
    return found | {f"{name}.{key}": of for name in apart for key, of in inputs[name].items()}


def _uncapital(name: str | None) -> str:
    return name[:1].lower() + name[1:] if name else ""


def _nested(request: Mapping[str, Any]) -> dict[str, Any]:
    """`a.b` as a member of `a`."""
    made: dict[str, Any] = {}
    for path, value in request.items():
        *outer, last = path.split(".")
        inside = made
        for step in outer:
            inside = inside.setdefault(step, {})
        inside[last] = value
    return made


@cache
def _request(service: str, operation: str) -> Shape:
    model = botocore.session.get_session().get_service_model(service)
    shape = model.operation_model(operation).input_shape
    assert shape is not None
    return shape


def _of(shape: Shape, value: Any, path: str, api: Api) -> Iterator[str]:
    if isinstance(value, str) and isinstance(shape, (StructureShape, ListShape)):
        value = json.loads(value)  # a document, as of containers
    if isinstance(shape, StructureShape):
        yield from _of_structure(shape, value, path, api)
    elif isinstance(shape, ListShape):
        yield from _of_list(shape, value, path, api)
    elif isinstance(shape, MapShape):
        for key, each in value.items():
            yield from _of(shape.key, key, f"{path}.{key}", api)
            yield from _of(shape.value, each, f"{path}.{key}", api)
    elif value != SECRET:
        yield from _of_scalar(shape, value, path)


def _of_structure(shape: StructureShape, value: Any, path: str, api: Api) -> Iterator[str]:
    if isinstance(value, list):  # one, which Pulumi writes as a list
        (value,) = value
    known = {name.lower(): name for name in shape.members}
    given = set()
    for prop, each in value.items():
        inside = f"{path}.{prop}".removeprefix(".")
        said = (api.spelt.get(inside, prop) if path else prop).lower()
        if inside in api.elsewhere:
            continue
        name = known.get(said) or known.get(said.removesuffix("s"))
        if name is None:
            yield f"{inside}: {shape.name} has no such member"
            continue
        given.add(name)
        yield from _of(shape.members[name], each, inside, api)
    for name in set(shape.required_members) - given:
        if path:  # of the whole request, what refers to others is joined by the provider
            yield f"{path}: lacks {name}"


def _of_list(shape: ListShape, value: Any, path: str, api: Api) -> Iterator[str]:
    if isinstance(value, Mapping) and isinstance(shape.member, StructureShape):
        names = {name.lower(): name for name in shape.member.members}
        held = next((name for name in names if name.endswith("value")), None)
        if held and not {each.lower() for each in value} & names.keys():
            key = next(name for name in names if name.endswith(("key", "name")))
            value = [{key: each, held: of} for each, of in value.items()]  # tags and dimensions
    items = as_list(value)
    yield from _bounds(shape, len(items), path, "items")
    for each in items:
        yield from _of(shape.member, each, path, api)


def _of_scalar(shape: Shape, value: Any, path: str) -> Iterator[str]:
    match shape.type_name:
        case "string":
            yield from _of_string(shape, value, path)
        case "integer" | "long" | "float" | "double":
            yield from _bounds(shape, float(value), path)
            if shape.type_name in ("integer", "long") and float(value) % 1:
                yield f"{path}: {value} is no whole number"
        case "boolean":
            if str(value).lower() not in ("true", "false"):
                yield f"{path}: {value!r} is neither true nor false"


def _of_string(shape: Shape, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, str):
        value = f"{value:g}" if isinstance(value, float) else str(value)
    yield from _bounds(shape, len(value), path, "characters")
    choices = shape.metadata.get("enum")
    if choices and value not in choices:
        yield f"{path}: {value!r} is none of {', '.join(choices)}"
    pattern = shape.metadata.get("pattern")
    if pattern and not regex.fullmatch(_python(pattern), value, regex.DOTALL):
        yield f"{path}: {value!r} does not match {pattern}"


def _python(pattern: str) -> str:
    """Of Java's expressions, which speak of surrogates where Python has characters."""
    surrogates = (r"\uD800\uDC00-\uDBFF\uDFFF", r"\ud800\udc00-\udbff\udfff")
    for each in surrogates:
        pattern = pattern.replace(each, r"\U00010000-\U0010FFFF")
    return pattern.replace(r"\p{Print}", "[[:print:]]").replace(r"\p{Graph}", "[[:graph:]]")


def _bounds(shape: Shape, value: float, path: str, unit: str = "") -> Iterator[str]:
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if (low is not None and value < low) or (high is not None and value > high):
        yield f"{path}: {value:g} {unit} is not between {low} and {high}"
