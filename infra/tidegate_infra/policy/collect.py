"""Collects what a Pulumi program declares, exactly as it would be sent to the engine."""

from __future__ import annotations

import sys
from typing import Any

import pulumi
from google.protobuf import json_format
from pulumi.runtime import rpc

from tidegate_infra.policy.declared import SECRET, Declared

SIGNATURE = "4dabf18193072939515e22adb298388d"
"""The key that marks a special value, such as a secret, in Pulumi's wire format."""


class Collector:
    """Sees every resource that is declared between `start` and `stop`."""

    def __init__(self) -> None:
        self._seen: list[pulumi.ResourceTransformationArgs] = []
        self._listens = False

    def start(self) -> None:
        """Listen; only resources that are made from now on are seen."""
        self._listens = True
        pulumi.runtime.register_stack_transformation(self._see)

    def stop(self) -> None:
        """Let later resources pass; Pulumi has no way to take a transformation back."""
        self._listens = False

    async def resources(self) -> list[Declared]:
        """What was declared. Waits for every output that an input is made from."""
        return [await _declared(seen) for seen in self._seen]

    def _see(self, args: pulumi.ResourceTransformationArgs) -> None:
        if self._listens and isinstance(args.resource, pulumi.CustomResource):
            self._seen.append(args)


async def _declared(seen: pulumi.ResourceTransformationArgs) -> Declared:
    resource, refers = seen.resource, dict[str, list[pulumi.Resource]]()
    typ = _args_class(resource)
    translate = None if typ else resource.translate_input_property
    struct = await rpc.serialize_properties(seen.props, refers, resource, translate, typ)
    return Declared(
        type=seen.type_,
        name=seen.name,
        inputs=_blanked(json_format.MessageToDict(struct)),
        refers={
            prop: frozenset(_key(other) for other in others) for prop, others in refers.items()
        },
        parent=_key(seen.opts.parent) if seen.opts.parent else None,
        after=frozenset(map(_key, _waits_for(seen.opts))),
    )


def _args_class(resource: pulumi.Resource) -> type | None:
    """The generated class that knows the wire names of the resource's properties.

    It is called InitArgs where a property of another resource has the plain name.
    """
    name, module = type(resource).__name__, sys.modules[type(resource).__module__]
    plain = getattr(module, f"{name}Args", None)
    return getattr(module, f"{name}InitArgs", plain)


def _waits_for(opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
    """Of `depends_on` what is said outright; a list that is itself an output is left out."""
    said = opts.depends_on
    listed = said if isinstance(said, list) else [said]
    return [each for each in listed if isinstance(each, pulumi.Resource)]


def _key(resource: pulumi.Resource) -> str:
    return f"{resource.pulumi_resource_type}::{resource.pulumi_resource_name}"


def _blanked(value: Any) -> Any:
    """The value with every secret inside it replaced."""
    if isinstance(value, dict):
        if SIGNATURE in value:
            return SECRET
        return {key: _blanked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_blanked(inner) for inner in value]
    return value
