"""What both pumps share about HTTP: settings, requests, replies, and failures of the connection.

The only modules that know httpx are this one, the two pumps and the two clients' constructors.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import httpx

from tidegate.connection import Connection
from tidegate.errors import ConnectionFailed, RequestTimeout, TidegateError
from tidegate.flow.steps import Reply, Request
from tidegate.version import VERSION

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 600.0
"""Requests are held while a deployment wakes, so silence is borne for long."""
KEEPALIVE_EXPIRY_S = 3.0
"""Shorter than servers keep an idle connection, so that one is not taken just as it closes."""
MAX_CONNECTIONS = 1000
PIECE_BYTES = 64 * 1024
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


def settings(connection: Connection, timeout_s: float) -> dict[str, Any]:
    """The arguments of `httpx.Client` and `httpx.AsyncClient`."""
    return {
        "base_url": connection.url,
        "headers": {
            "Authorization": f"Bearer {connection.api_key}",
            "User-Agent": f"tidegate-python/{VERSION}",
        },
        "timeout": timeout(timeout_s),
        "limits": httpx.Limits(
            max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE_EXPIRY_S
        ),
        "trust_env": not connection.is_local,
    }


def timeout(seconds: float) -> httpx.Timeout:
    """Limits on silence; waiting for a free connection is bounded by the requests that hold one."""
    return httpx.Timeout(seconds, connect=min(CONNECT_TIMEOUT_S, seconds), pool=None)


def build(
    http: httpx.Client | httpx.AsyncClient, request: Request, timeout_s: float
) -> httpx.Request:
    """The request as httpx sends it."""
    body: dict[str, Any] = {}
    if request.upload is not None:
        file = (request.upload.filename, request.upload.file, "application/jsonl")
        body = {"files": {"file": file}, "data": dict(request.upload.fields)}
    elif request.file is not None:
        is_async = isinstance(http, httpx.AsyncClient)
        body = {"content": (_awaited_pieces if is_async else _pieces)(request.file)}
    elif request.json is not None:
        body = {"json": request.json}
    kind = {"Content-Type": "application/json"} if request.file is not None else {}
    return http.build_request(
        request.method,
        request.path,
        params=dict(request.query),
        headers={**kind, **request.headers},
        timeout=timeout(timeout_s if request.timeout_s is None else request.timeout_s),
        **body,
    )


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """A file from its beginning."""
    file.seek(0)
    while piece := file.read(PIECE_BYTES):
        yield piece


async def _awaited_pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    """The same for a client that awaits: reading a piece of a local file is short."""
    for piece in _pieces(file):
        yield piece


def reply(response: httpx.Response, body: Any = None) -> Reply:
    """The answer as a flow sees it: with its content read, or with `body` to read on from."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    content = response.content if body is None else b""
    return Reply(response.status_code, headers, content, body)


@contextmanager
def typed_failures(url: str) -> Iterator[None]:
    """Turn httpx's failures into ours."""
    try:
        yield
    except httpx.TimeoutException as error:
        sent = not isinstance(error, NEVER_SENT)
        doing = "answer" if sent else "accept a connection"
        raise RequestTimeout(
            f"the server at {url} did not {doing} in time; raise `timeout`, or look at its state "
            "with 'tidegate status'",
            sent=sent,
        ) from error
    except httpx.TransportError as error:
        if isinstance(error, NEVER_SENT):
            message = f"no server can be reached at {url} ({error}); is it up? Try 'tidegate up'"
        else:
            message = f"the connection to {url} broke ({str(error) or type(error).__name__})"
        raise ConnectionFailed(message, sent=not isinstance(error, NEVER_SENT)) from error
    except (httpx.InvalidURL, httpx.DecodingError) as error:
        raise TidegateError(f"the exchange with {url} is not HTTP as agreed: {error}") from error
