"""SageMaker's runtime API in front of copies that are HTTP replicas.

`InvokeEndpoint` and `InvokeEndpointWithResponseStream` for inference components: the copy with the
fewest requests is asked for the path that the free header names, as the image's `/invocations`
does. Refusals are worded as SageMaker words them.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from urllib.parse import unquote

import aiohttp
from aiohttp import web
from tests.aws_double.frames import exception, part
from tests.aws_double.signature import is_signed

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
NO_CAPACITY = (
    "Inference Component has no capacity to process this request. ApplicationAutoScaling may be "
    "in-progress (if configured) or try to increase the capacity by invoking "
    "UpdateInferenceComponentRuntimeConfig API."
)


@dataclass(eq=False)
class Copy:
    """One container, as SageMaker sees it."""

    url: str
    token: str
    running: int = 0


@dataclass
class Component:
    """Copies that share a name."""

    endpoint: str
    copies: list[Copy] = field(default_factory=list)


@dataclass
class Runtime:
    """The API; put components in, and point `AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME` at it."""

    components: dict[str, Component] = field(default_factory=dict)
    answer_s: float = 60.0
    """For an answer in one piece."""
    stream_s: float = 480.0
    refuses: tuple[int, str, str] | None = None
    """Status, kind and message of what every request is answered."""
    asked: list[dict[str, str]] = field(default_factory=list)
    """The free header of each request, taken apart."""

    def routes(self, app: web.Application) -> None:
        app.router.add_post("/endpoints/{endpoint}/invocations", self._invoke)
        app.router.add_post("/endpoints/{endpoint}/invocations-response-stream", self._stream)
        app.cleanup_ctx.append(self._client)

    async def _client(self, app: web.Application):
        async with aiohttp.ClientSession(auto_decompress=False) as self._http:
            yield

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        try:
            async with (
                asyncio.timeout(self.answer_s),
                self._asked(request, await request.read()) as own,
            ):
                body = await own.read()
                if own.status != 200:
                    return model_error(own.status, body)
                return web.Response(body=body, headers={"content-type": own.content_type})
        except _Refusal as refusal:
            return refusal.response
        except TimeoutError:
            return model_error(
                0, b"Your invocation timed out while waiting for a response from container primary."
            )
        except aiohttp.ClientError:
            return refused(500, "InternalFailure", "An internal failure occurred.")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        try:
            async with self._asked(request, await request.read()) as own:
                if own.status != 200:
                    return model_error(own.status, await own.read())
                response = web.StreamResponse(
                    headers={
                        "content-type": "application/vnd.amazon.eventstream",
                        "X-Amzn-SageMaker-Content-Type": own.headers["content-type"],
                    }
                )
                await response.prepare(request)
                try:
                    async with asyncio.timeout(self.stream_s):
                        async for piece in own.content.iter_any():
                            await response.write(part(piece))
                except (TimeoutError, aiohttp.ClientError) as error:
                    late = isinstance(error, TimeoutError)
                    code = "ModelInvocationTimeExceeded" if late else "StreamBroken"
                    said = json.dumps({"Message": "no more", "ErrorCode": code}).encode()
                    await response.write(exception("ModelStreamError", said))
                await response.write_eof()
                return response
        except _Refusal as refusal:
            return refusal.response

    def _asked(self, request: web.Request, body: bytes) -> _Asked:
        if not is_signed(request, body):
            raise _Refusal(403, "InvalidSignatureException", "The request signature we calculated")
        if self.refuses:
            raise _Refusal(*self.refuses)
        component = self.components.get(request.headers["X-Amzn-SageMaker-Inference-Component"])
        name = request.match_info["endpoint"]
        if component is None or component.endpoint != name:
            raise _Refusal(400, "ValidationError", f"Endpoint {name} of account 1 not found.")
        if not component.copies:
            raise _Refusal(400, "ValidationError", NO_CAPACITY)
        told = dict(each.split("=", 1) for each in request.headers[ATTRIBUTES].split(";"))
        self.asked.append({key: unquote(value) for key, value in told.items()})
        copy = min(component.copies, key=lambda each: each.running)
        return _Asked(self._http, copy, self.asked[-1], body)


class _Asked:
    """A request that a copy has."""

    def __init__(
        self, http: aiohttp.ClientSession, copy: Copy, told: dict[str, str], body: bytes
    ) -> None:
        self._copy = copy
        self._request = http.post(
            copy.url + told["path"],
            data=body,
            headers={
                "content-type": "application/json",
                "authorization": f"Bearer {copy.token}",
                "X-Request-Id": told["request_id"],
                "X-Tidegate-Project": told["project"],
                "X-Tidegate-Priority": told["priority"],
            },
        )

    async def __aenter__(self) -> aiohttp.ClientResponse:
        self._copy.running += 1
        return await self._request.__aenter__()

    async def __aexit__(self, *error: object) -> None:
        self._copy.running -= 1
        await self._request.__aexit__(*error)  # type: ignore[arg-type]


class _Refusal(Exception):
    def __init__(self, status: int, kind: str, message: str) -> None:
        self.response = refused(status, kind, message)


def refused(status: int, kind: str, message: str) -> web.Response:
    """An error of SageMaker's own."""
    return web.json_response(
        {"Message": message},
        status=status,
        headers={"x-amzn-ErrorType": f"{kind}:http://internal/"},
    )


def model_error(status: int, body: bytes) -> web.Response:
    """What the container answered, wrapped."""
    own = body.decode()
    party = "client" if 400 <= status < 500 else "server"
    return web.json_response(
        {
            "ErrorCode": "SERVER_ERROR_FROM_MODEL",
            "Message": f'Received {party} error ({status}) from primary with message "{own}". See',
            "OriginalMessage": own,
            "OriginalStatusCode": status,
        },
        status=424,
        headers={"x-amzn-ErrorType": "ModelError:http://internal/"},
    )
