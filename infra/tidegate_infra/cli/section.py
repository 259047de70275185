"""Sections of the file, made from what the components take."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import MISSING, Field, fields
from types import SimpleNamespace
from typing import Any, get_type_hints

import pydantic

from tidegate.spec.declaration import Declaration


class _Value:
    """Stands for `pulumi.Input`: in a file, an `Input[str]` is a text and never an output."""

    def __class_getitem__(cls, kind: Any) -> Any:
        return kind


def section_of(
    args: type, *, without: Collection[str] = (), optional: Collection[str] = ()
) -> type[Declaration]:
    """The fields of `args`, a dataclass, as a person writes them.

    `without` are not for the file; `optional` are, though the component demands them.
    """
    kinds = get_type_hints(args, localns={"pulumi": SimpleNamespace(Input=_Value)})
    told: dict[str, Any] = {}
    for field in fields(args):
        if field.name in optional:
            told[field.name] = (kinds[field.name] | None, None)
        elif field.name not in without:
            told[field.name] = (kinds[field.name], _default(field))
    return pydantic.create_model(args.__name__, __base__=Declaration, **told)


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return pydantic.Field(default_factory=field.default_factory)
    return ... if field.default is MISSING else field.default
