"""From the bytes of a request to a validated shape, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeVar

import pydantic
import pydantic_core

from tidegate.protocol.openai import error_from_validation
from tidegate.protocol.replica import MAX_BODY_BYTES
from tidegate_runtime.errors import RequestRefused

MAX_DEPTH = 64
_SMALL_BYTES = 64 * 1024

Shape = TypeVar("Shape", bound=pydantic.BaseModel)


async def read_body(content_length: str | None, chunks: AsyncIterator[bytes]) -> bytes:
    """The whole body. Raises RequestRefused (413) as soon as it is known to be too large."""
    if content_length is not None and content_length.isdigit():
        _check_size(int(content_length))
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        _check_size(len(body))
    return bytes(body)


async def read_shape(body: bytes, shape: type[Shape]) -> Shape:
    """Parse and validate a body; large ones away from the event loop. Raises RequestRefused."""
    if len(body) < _SMALL_BYTES:
        return parse(body, shape)
    return await asyncio.to_thread(parse, body, shape)


def parse(body: bytes, shape: type[Shape]) -> Shape:
    """Parse and validate a body. Raises RequestRefused (400) that names field and value."""
    value = read_json(body)
    _check_depth(value)
    try:
        return shape.model_validate(value)
    except pydantic.ValidationError as error:
        detail = error_from_validation(error.errors(include_url=False))
        raise RequestRefused(detail.message, param=detail.param, code=detail.code) from error


def read_json(body: bytes) -> Any:
    """What a body says. Raises RequestRefused (400) when it is no JSON."""
    try:
        return pydantic_core.from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RequestRefused(
            f"The body is not JSON: {error}. Send a JSON object with content type "
            "application/json.",
            code="invalid_json",
        ) from error


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_BODY_BYTES:
        raise RequestRefused(
            f"The body is larger than {MAX_BODY_BYTES} bytes; send less, or use a batch.",
            code="body_too_large",
            status=413,
        )


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return
    raise RequestRefused(
        f"The body is nested deeper than {MAX_DEPTH} levels; flatten it.", code="json_too_deep"
    )


def _children(value: Any) -> list[Any]:
    """The lists and objects directly inside a value."""
    inside: Iterable[Any]
    if isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, list):
        inside = value
    else:
        return []
    return [child for child in inside if isinstance(child, dict | list)]
