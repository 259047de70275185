"""A resource as a program declares it: what guard rails and graphs are computed from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""How Pulumi's wire format writes a value that only the cloud will know."""
SECRET = "[secret]"


@dataclass(frozen=True)
class Declared:
    """One custom resource. Names of properties are Pulumi's own, in camelCase."""

    type: str
    """`aws:s3/bucket:Bucket`"""
    name: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    """Secrets are blanked, and a value that is not known before it is made is `UNKNOWN`."""
    refers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Property → keys of the resources whose outputs it is made from."""
    parent: str | None = None
    """Key of the component that it belongs to."""
    after: frozenset[str] = frozenset()
    """Keys of what it waits for without being made from it."""

    @property
    def key(self) -> str:
        """Tells resources of one program apart, before the cloud gives them an id."""
        return f"{self.type}::{self.name}"

    def refers_to(self, other: Declared, prop: str | None = None) -> bool:
        """Whether a property, or any, is made from an output of `other`."""
        if prop is not None:
            return other.key in self.refers.get(prop, ())
        return any(other.key in keys for keys in self.refers.values())

    def __str__(self) -> str:
        return f"{self.type} {self.name!r}"


def of_type(resources: Iterable[Declared], *types: str) -> list[Declared]:
    """Those of some types, in the order in which they were declared."""
    return [resource for resource in resources if resource.type in types]


def statements(inputs: Mapping[str, Any], prop: str) -> list[dict[str, Any]]:
    """The statements of an IAM policy document; none while it is not known."""
    text = inputs.get(prop, UNKNOWN)
    found = [] if text == UNKNOWN else json.loads(text).get("Statement", [])
    return found if isinstance(found, list) else [found]


def as_list(value: Any) -> list[Any]:
    """What IAM and Pulumi write as one value or as a list of them."""
    return value if isinstance(value, list) else [value]
