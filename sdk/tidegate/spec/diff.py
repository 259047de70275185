"""What changes between two declarations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tidegate.spec.deployment import DeploymentSpec


@dataclass(frozen=True)
class Change:
    """One field that differs; `before` is None when it is new, `after` when it is removed."""

    field: str
    before: Any
    after: Any


def diff(before: DeploymentSpec | None, after: DeploymentSpec) -> list[Change]:
    """Every leaf field whose value differs, sorted by name."""
    old = dict(_leaves("", before.model_dump(mode="json"))) if before else {}
    new = dict(_leaves("", after.model_dump(mode="json")))
    fields = sorted(old.keys() | new.keys())
    return [Change(f, old.get(f), new.get(f)) for f in fields if old.get(f) != new.get(f)]


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else key, item)
    else:
        yield prefix, value
