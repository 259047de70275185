"""Lists that come in pages: ask for the next one only when someone iterates that far."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from tidegate.errors import UnexpectedAnswer
from tidegate.flow.steps import Emit, Emitting, Flow, Reply, Request, ask

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
PAGE_LIMIT = 100


def read(reply: Reply, model: type[M]) -> M:
    """The answer's body as a model; raises UnexpectedAnswer when it is something else."""
    try:
        return model.model_validate_json(reply.content)
    except ValidationError as error:
        raise _unexpected(reply, model.__name__) from error


def pages(request: Request, model: type[M], make: Callable[[M], T]) -> Emitting[T]:
    """Every item of a list, over all its pages. Both planes' cursors are understood."""
    more: Request | None = request
    while more is not None:
        items, more = yield from page(more, model)
        for item in items:
            yield Emit(make(item))


def collected(request: Request, model: type[M]) -> Flow[list[M]]:
    """The same, as one list."""
    found: list[M] = []
    more: Request | None = request
    while more is not None:
        items, more = yield from page(more, model)
        found += items
    return found


def page(request: Request, model: type[M]) -> Flow[tuple[list[M], Request | None]]:
    """One page's items, and the request for the page after it, if there is one."""
    reply = yield from ask(replace(request, query={"limit": PAGE_LIMIT, **request.query}))
    try:
        body: Any = json.loads(reply.content)
        items = [model.model_validate(item) for item in body["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise _unexpected(reply, f"page of {model.__name__}") from error
    cursor = body.get("next") or body.get("last_id")
    if not (body.get("has_more") and cursor):
        return items, None
    return items, replace(request, query={**request.query, "after": cursor})


def _unexpected(reply: Reply, promised: str) -> UnexpectedAnswer:
    shown = reply.content[:200].decode("utf-8", "replace")
    return UnexpectedAnswer(
        f"the answer is not a {promised}; is this URL a Tidegate server of this version? "
        f"It begins with {shown!r}",
        status=reply.status,
        request_id=reply.headers.get("x-request-id"),
    )
