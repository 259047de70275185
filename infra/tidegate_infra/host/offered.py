"""A component as Pulumi's component host reads it: annotations that are types, and plain mappings.

The host makes a schema of annotations. It reads neither those of `from __future__`, nor `Sequence`
and `Mapping`, nor that a field with a default may be left out; and it hands over a dictionary. What
is made here says the same in its way, so that the components themselves stay as they are.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from functools import reduce
from inspect import get_annotations
from operator import or_
from typing import Any, Union, get_args, get_origin

import pulumi

Component = type[pulumi.ComponentResource]
_COLLECTIONS: dict[Any, Any] = {Sequence: list, Mapping: dict}


def offered(component: Component) -> Component:
    """The same component under the same name, for the host."""
    arguments = get_annotations(component.__init__, eval_str=True)["args"]
    own_init: Any = component.__init__

    def init(
        self: pulumi.ComponentResource,
        name: str,
        args: Mapping[str, Any],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        own_init(self, name, arguments(**args), opts)

    init.__annotations__ = {"args": _described(arguments)}
    own = get_annotations(component, eval_str=True)
    outputs = {name: _readable(each) for name, each in own.items()}
    members = {"__init__": init, "__doc__": component.__doc__, "__annotations__": outputs}
    return type(component.__name__, (component,), members)


def _described(arguments: type) -> type:
    """A class with the annotations of a dataclass of arguments, as the host reads them."""
    hints: dict[str, Any] = {}
    for each in reversed(arguments.__mro__):
        hints |= get_annotations(each, eval_str=True)
    annotations = {}
    for field in dataclasses.fields(arguments):
        readable = _readable(hints[field.name])
        annotations[field.name] = readable if _is_required(field) else readable | None
    members = {"__doc__": arguments.__doc__, "__annotations__": annotations}
    return type(arguments.__name__, (), members)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _readable(annotation: Any) -> Any:
    """The same type with the collections that the host knows."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if not inner:
        return annotation
    parts = tuple(map(_readable, inner))
    if origin in _COLLECTIONS:
        return _COLLECTIONS[origin][parts]
    if parts == inner or origin is None:
        return annotation
    return reduce(or_, parts) if origin in (Union, types.UnionType) else origin[parts]
