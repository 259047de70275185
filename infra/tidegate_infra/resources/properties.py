"""From what a program writes (specs, mappings, outputs) to a resource's properties."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

import pulumi
from pydantic import BaseModel

from tidegate_infra.provider.names import OFF, camel
from tidegate_infra.provider.shapes import Shape, can_be_off

T = TypeVar("T", bound=BaseModel)
Part = pulumi.Input[T | Mapping[str, Any]]
"""A part of a spec such as `ScalingSpec`, or a mapping with its fields; outputs may be inside."""


def properties(value: Any, shape: Shape) -> Any:
    """The value with names as Pulumi has them; what only the update will know is waited for."""
    if isinstance(value, pulumi.Output):
        return value.apply(partial(properties, shape=shape))
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping) and shape.model:
        return {camel(name): _field(each, name, shape) for name, each in value.items()}
    if isinstance(value, Mapping) and shape.values:
        return {key: properties(each, shape.values) for key, each in value.items()}
    if isinstance(value, list | tuple) and shape.items:
        return [properties(each, shape.items) for each in value]
    return value


def _field(value: Any, name: str, shape: Shape) -> Any:
    found = shape.model.model_fields.get(name) if shape.model else None
    if value is None and found is not None and can_be_off(found):
        return OFF
    return properties(value, shape.field(name) or Shape())
