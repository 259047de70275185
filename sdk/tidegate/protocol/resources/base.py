"""What every resource is: a shape we return, a shape we accept, a page of a list."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")


class Resource(BaseModel):
    """A shape we return: a reader of an older version ignores the fields of a newer one."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Request(BaseModel):
    """A shape we accept: unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Resource, Generic[T]):
    """One page of a list. Ask again with `after=<next>` while `has_more`."""

    data: list[T]
    has_more: bool = False
    next: str | None = Field(default=None, description="cursor of the next page")
