"""What Pulumi is to do about a difference: nothing, an update in place, or a replacement."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pulumi.provider.experimental.provider import DiffResponse, PropertyDiff, PropertyDiffKind

Kind = PropertyDiffKind
_REPLACING = {
    Kind.ADD: Kind.ADD_REPLACE,
    Kind.DELETE: Kind.DELETE_REPLACE,
    Kind.UPDATE: Kind.UPDATE_REPLACE,
}
_IDENTIFIER = re.compile(r"^[A-Za-z_$][A-Za-z0-9_$]*$")


@dataclass(frozen=True)
class Fixed:
    """The properties that cannot change in place, by path; `name` identifies it on the server."""

    paths: frozenset[str]
    name: str | None = None

    def replaces(self, path: str) -> bool:
        return path in self.paths


def response(old: Mapping[str, Any], new: Mapping[str, Any], fixed: Fixed) -> DiffResponse:
    """The answer for these properties.

    A replacement that keeps its name can only be made when the name is free again, so that it is
    deleted first.
    """
    kinds = dict(_kinds(old, new))
    replaces = [path for path in kinds if fixed.replaces(path)]
    detailed = {
        path: PropertyDiff(_REPLACING[kind] if path in replaces else kind, input_diff=False)
        for path, kind in kinds.items()
    }
    same_name = fixed.name is not None and old.get(fixed.name) == new.get(fixed.name)
    return DiffResponse(
        changes=bool(kinds),
        replaces=replaces,
        diffs=list(dict.fromkeys(re.split(r"[.\[]", path)[0] for path in kinds)),
        detailed_diff=detailed,
        delete_before_replace=bool(replaces) and same_name,
    )


def _kinds(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Kind]]:
    olds, news = dict(_leaves("", old)), dict(_leaves("", new))
    for path in sorted(olds.keys() | news.keys()):
        if path not in olds:
            yield path, Kind.ADD
        elif path not in news:
            yield path, Kind.DELETE
        elif olds[path] != news[path]:
            yield path, Kind.UPDATE


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            dotted = f"{prefix}.{key}" if prefix else key
            yield from _leaves(dotted if _IDENTIFIER.match(key) else f'{prefix}["{key}"]', each)
    else:
        yield prefix, value
