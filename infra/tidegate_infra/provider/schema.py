"""The package's schema, from which Pulumi makes SDKs for other languages: made from the models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tidegate.protocol.resources import ApiKeyRequest
from tidegate.spec import DeploymentSpec
from tidegate.version import VERSION
from tidegate_infra.provider import api_keys, deployments, names
from tidegate_infra.provider.shapes import Shape, can_be_off, shape_of

Json = dict[str, Any]

PACKAGE = "tidegate"
PRIMITIVES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
)
SETTINGS: Json = {
    "url": {"type": "string", "description": "of the platform, such as http://127.0.0.1:8686"},
    "apiKey": {"type": "string", "secret": True, "description": "of the role admin"},
    "connectionFile": {
        "type": "string",
        "description": "connection.json of a platform's data directory, in place of url and apiKey",
    },
}
WAIT: Json = {
    "type": "boolean",
    "default": True,
    "description": "A step is done when the deployment serves, not when it is declared. "
    "`customTimeouts` bound the wait; ten minutes when absent.",
}


def schema_text() -> str:
    """The schema as JSON."""
    return json.dumps(schema(), indent=2) + "\n"


def schema() -> Json:
    """The schema as Pulumi's metaschema describes it."""
    return {
        "name": PACKAGE,
        "version": VERSION,
        "displayName": "Tidegate",
        "description": "Language models on a self-hosted serverless inference platform.",
        "license": "Apache-2.0",
        "language": {"nodejs": {"respectSchemaVersion": True}},
        "config": {"variables": SETTINGS},
        "provider": {"inputProperties": SETTINGS},
        "types": dict(sorted(_types(DeploymentSpec, ApiKeyRequest))),
        "resources": {
            deployments.TOKEN: _deployment(),
            api_keys.TOKEN: _resource(ApiKeyRequest, api_keys.ApiKeyOutputs, api_keys.SECRET),
        },
    }


def _deployment() -> Json:
    resource = _resource(DeploymentSpec, deployments.DeploymentOutputs, frozenset())
    model = resource["inputProperties"]["model"]
    source = {"description": model["description"], "oneOf": [{"type": "string"}, _type_of(model)]}
    resource["inputProperties"] |= {"model": source, deployments.WAIT: WAIT}
    return resource


def _resource(inputs: type[BaseModel], more: type[BaseModel], secret: frozenset[str]) -> Json:
    declared, added = _properties(inputs), _properties(more)
    for name in secret:
        added[name]["secret"] = True
    required = [name for name in _required(inputs) if name != "name"]
    return {
        "description": (inputs.__doc__ or "").strip(),
        "inputProperties": declared,
        "requiredInputs": required,
        "properties": declared | added,
        "required": [*_required(inputs), *_required(more)],
    }


def _properties(model: type[BaseModel]) -> Json:
    fields = model.model_fields.items()
    return {names.camel(name): _property(field, model) for name, field in fields}


def _property(field: FieldInfo, model: type[BaseModel]) -> Json:
    found = _of_shape(shape_of(field.annotation))
    if can_be_off(field):
        found = {"oneOf": [found, {"type": "string"}]}
    if field.description:
        text = names.in_properties(field.description, model)
        off = f" `{names.OFF}` for none." if can_be_off(field) else ""
        found["description"] = text + off
    return found


def _of_shape(shape: Shape) -> Json:
    if shape.model:
        return {"type": "object", "$ref": f"#/types/{_token(shape.model)}"}
    if shape.items:
        return {"type": "array", "items": _of_shape(shape.items)}
    if shape.values:
        return {"type": "object", "additionalProperties": _of_shape(shape.values)}
    found = list({json.dumps(one): one for kind in shape.plain for one in _plain(kind)}.values())
    return found[0] if len(found) == 1 else {"oneOf": found}


def _plain(kind: Any) -> Iterator[Json]:
    if get_origin(kind) is Literal:
        yield from ({"type": _primitive(type(each))} for each in get_args(kind))
    elif issubclass(kind, Enum):
        yield {"type": "string", "$ref": f"#/types/{_token(kind)}"}
    else:
        yield {"type": _primitive(kind)}
        if kind is not int and issubclass(kind, int) and kind is not bool:
            yield {"type": "string"}  # a number of bytes, which text such as 2GiB may give


def _primitive(kind: type) -> str:
    return next(name for parent, name in PRIMITIVES if issubclass(kind, parent))


def _types(*models: type[BaseModel]) -> Iterator[tuple[str, Json]]:
    for model in models:
        for field in model.model_fields.values():
            yield from _types_in(shape_of(field.annotation))


def _types_in(shape: Shape) -> Iterator[tuple[str, Json]]:
    for inner in (shape.items, shape.values):
        if inner:
            yield from _types_in(inner)
    if shape.model:
        yield _token(shape.model), _object(shape.model)
        yield from _types(shape.model)
    for kind in shape.plain:
        if isinstance(kind, type) and issubclass(kind, Enum):
            values = [{"value": each.value} for each in kind]
            yield _token(kind), {"type": "string", "enum": values} | _described(kind)


def _object(model: type[BaseModel]) -> Json:
    found = {"type": "object", "properties": _properties(model), "required": _required(model)}
    return found | _described(model)


def _described(kind: type) -> Json:
    own = kind.__doc__ if "__doc__" in vars(kind) else None
    return {"description": own.strip()} if own else {}


def _required(model: type[BaseModel]) -> list[str]:
    return [names.camel(name) for name, field in model.model_fields.items() if field.is_required()]


def _token(kind: type) -> str:
    return f"{PACKAGE}:index:{kind.__name__.removesuffix('Spec')}"


def _type_of(found: Mapping[str, Any]) -> Json:
    return {key: each for key, each in found.items() if key != "description"}
