"""Reading a request's body within bounds: refuse before holding it, and before parsing it."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from litestar.connection import Request
from pydantic import BaseModel

from tidegate_controlplane.domain.nesting import is_within
from tidegate_controlplane.errors import BadRequest, TooLarge

JSON_DEPTH = 64
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class JsonBody:
    """A JSON object: the bytes as they came, and what they say."""

    raw: bytes
    document: dict[str, Any]


async def read_bytes(request: Request[Any, Any, Any], limit_bytes: int) -> bytes:
    """The whole body. Raises TooLarge as soon as it is known to be longer than `limit_bytes`."""
    return b"".join([piece async for piece in stream(request, limit_bytes)])


async def stream(request: Request[Any, Any, Any], limit_bytes: int) -> AsyncIterator[bytes]:
    """The body as it comes. Raises TooLarge as soon as it is known to be longer than that."""
    _check_length(request.headers.get("content-length"), limit_bytes)
    total = 0
    async for piece in _pieces(request):
        total += len(piece)
        if total > limit_bytes:
            raise _too_large(limit_bytes)
        yield piece


async def read_json(
    request: Request[Any, Any, Any], limit_bytes: int, depth: int = JSON_DEPTH
) -> JsonBody:
    """The body as a JSON object. Raises TooLarge, or BadRequest naming line and column."""
    raw = await read_bytes(request, limit_bytes)
    return JsonBody(raw, parse_object(raw, depth))


async def read_model(request: Request[Any, Any, Any], model: type[M], limit_bytes: int) -> M:
    """The body as `model`. Its ValidationError is rendered as the caller's fault (400 or 422)."""
    body = await read_json(request, limit_bytes)
    return model.model_validate(body.document)


def parse_object(raw: bytes, depth: int = JSON_DEPTH) -> dict[str, Any]:
    """What `raw` says; BadRequest unless it is one JSON object, nested at most `depth` deep."""
    try:
        document = _DECODER.decode(raw.decode())
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"the body is not UTF-8: byte {error.start} cannot be read", code="invalid_json"
        ) from None
    except json.JSONDecodeError as error:
        raise BadRequest(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            code="invalid_json",
        ) from None
    except RecursionError:
        raise _too_deep(depth) from None
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(document, dict):
        raise BadRequest(
            f"the body must be a JSON object, not {_JSON_NAMES[type(document)]}",
            code="invalid_json",
        )
    if raw.count(b"{") + raw.count(b"[") > depth and not is_within(document, depth):
        raise _too_deep(depth)
    return document


async def _pieces(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise BadRequest("the client closed the connection before the whole body came")
        yield message["body"]
        if not message["more_body"]:
            return


def _check_length(declared: str | None, limit_bytes: int) -> None:
    if declared is not None and declared.isdecimal() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:32]} is out of range")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit_bytes} bytes; send less in one request")


def _too_deep(depth: int) -> BadRequest:
    return BadRequest(f"the body is nested deeper than {depth} levels", code="invalid_json")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite_float)
_JSON_NAMES = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}
