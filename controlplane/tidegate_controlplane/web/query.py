"""A query string as a model: unknown and malformed parameters are refused by name."""

from __future__ import annotations

import types
import typing
from typing import Annotated, Any, TypeVar

from litestar.connection import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tidegate.protocol.openai import error_from_validation
from tidegate_controlplane.errors import BadRequest

M = TypeVar("M", bound=BaseModel)


class Query(BaseModel):
    """The parameters of a route. A list field takes a repeated parameter."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PageQuery(Query):
    """Which part of a list to answer."""

    after: Annotated[str, Field(max_length=256)] | None = Field(
        default=None, description="cursor: the `next` (or `last_id`) of the page before"
    )
    limit: int = Field(default=20, ge=1, le=100)


def read_query(request: Request[Any, Any, Any], model: type[M]) -> M:
    """The query string as `model`. Raises BadRequest naming the parameter."""
    given: dict[str, Any] = {}
    for name in request.query_params:
        values = request.query_params.getall(name)
        given[name] = values if _takes_list(model, name) else values[-1]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        detail = error_from_validation(error.errors())
        raise BadRequest(detail.message, code=detail.code, param=detail.param) from None


def _takes_list(model: type[BaseModel], name: str) -> bool:
    field = model.model_fields.get(name)
    return field is not None and _is_list(field.annotation)


def _is_list(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_is_list(part) for part in typing.get_args(annotation))
    return origin is list
