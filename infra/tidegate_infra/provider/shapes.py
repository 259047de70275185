"""What the type of a field means for its properties: a model, a map, a list, or a plain value."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Shape:
    """`plain` types are alternatives; `items` are those of a list, `values` those of a map."""

    plain: tuple[Any, ...] = ()
    model: type[BaseModel] | None = None
    items: Shape | None = None
    values: Shape | None = None
    admits_none: bool = False

    def field(self, name: str) -> Shape | None:
        """The shape of a model's field; None when there is no such field."""
        found = self.model.model_fields.get(name) if self.model else None
        return shape_of(found.annotation) if found else None


def shape_of(annotation: Any) -> Shape:
    """Raises TypeError for a type that no property stands for."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return shape_of(arguments[0])
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is dict:
        return Shape(values=shape_of(arguments[1]))
    if origin in (tuple, list):
        return Shape(items=shape_of(arguments[0]))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return Shape(model=annotation)
    return Shape(plain=(annotation,))


def can_be_off(field: FieldInfo) -> bool:
    """Whether None means something else than the field's absence."""
    return shape_of(field.annotation).admits_none and field.get_default() is not None


def _union(arguments: tuple[Any, ...]) -> Shape:
    shapes = [shape_of(each) for each in arguments if each is not types.NoneType]
    admits_none = types.NoneType in arguments
    if len(shapes) == 1:
        only = shapes[0]
        return Shape(only.plain, only.model, only.items, only.values, admits_none)
    if not all(shape.plain for shape in shapes):
        raise TypeError(f"no property stands for {arguments}")
    return Shape(tuple(one for shape in shapes for one in shape.plain), admits_none=admits_none)
