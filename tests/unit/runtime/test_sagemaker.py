"""What SageMaker's contract makes of a request, before any route sees it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tidegate.protocol.replica import ReplicaState
from tidegate_runtime.server.lifecycle import Lifecycle
from tidegate_runtime.server.sagemaker import SageMaker
from tidegate_runtime.server.status import StatusFile

CHAT = {"messages": []}


class Told:
    """An ASGI application that remembers what it was asked."""

    def __init__(self) -> None:
        self.path = ""
        self.headers: dict[str, str] = {}
        self.body = b""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.path = scope["path"]
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        message = {"more_body": True}
        while message["more_body"]:
            message = await receive()
            self.body += message["body"]
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Surrounded:
    """The contract between a gate and routes that only listen."""

    def __init__(self) -> None:
        self.gate, self.routes = Told(), Told()
        self.lifecycle = Lifecycle(StatusFile(None, "r"), 0)
        app: Any = SageMaker(self.gate, self.routes, self.lifecycle)
        transport = httpx.ASGITransport(app)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://c")

    async def invoke(self, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post("/invocations", content=content, headers=named)


@pytest.fixture
async def around() -> Any:
    made = Surrounded()
    yield made
    await made.client.aclose()


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (CHAT, "/v1/chat/completions"),
        ({"prompt": "x"}, "/v1/completions"),
        ({"input": "x"}, "/v1/embeddings"),
        ({"query": "x", "documents": ["y"]}, "/v1/rerank"),
        ({"text_1": "x", "text_2": "y"}, "/v1/score"),
    ],
)
async def test_a_route_gets_the_whole_body_that_chose_it(
    around: Surrounded, body: Any, path: str
) -> None:
    await around.invoke(body)
    assert around.routes.path == path
    assert json.loads(around.routes.body) == body
    assert around.gate.path == ""


async def test_a_path_that_is_said_needs_no_look_at_the_body(around: Surrounded) -> None:
    await around.invoke(b"{", x_amzn_sagemaker_custom_attributes="path=/v1/embeddings")
    assert (around.routes.path, around.routes.body) == ("/v1/embeddings", b"{")


async def test_whose_request_it_is_comes_from_the_attributes_alone(around: Surrounded) -> None:
    told = "path=/v1/completions;project=p1;priority=2;request_id=r1"
    await around.invoke(
        CHAT, x_amzn_sagemaker_custom_attributes=told, x_tidegate_project="p2", x_request_id="r2"
    )
    named = ("x-tidegate-project", "x-tidegate-priority", "x-request-id")
    assert [around.routes.headers[name] for name in named] == ["p1", "2", "r1"]
    await around.invoke(CHAT, x_tidegate_project="p2", x_tidegate_priority="0")
    assert not set(named) & set(around.routes.headers)


async def test_every_other_path_goes_to_the_gate(around: Surrounded) -> None:
    await around.client.post("/v1/chat/completions", json=CHAT)
    assert (around.gate.path, around.routes.path) == ("/v1/chat/completions", "")


@pytest.mark.parametrize("body", [{}, [], {"prompt": "x", "input": "y"}, b"{"])
async def test_a_body_that_names_no_route_is_refused(around: Surrounded, body: Any) -> None:
    answer = await around.invoke(body)
    assert (answer.status_code, around.routes.path) == (400, "")


async def test_ping_is_200_only_while_requests_are_served(around: Surrounded) -> None:
    found = []
    for state in (ReplicaState.LOADING, ReplicaState.READY, ReplicaState.DRAINING):
        around.lifecycle.to(state)
        found.append((await around.client.get("/ping")).status_code)
    assert found == [503, 200, 503]


@pytest.mark.parametrize(("method", "path"), [("GET", "/invocations"), ("POST", "/ping")])
async def test_another_method_is_refused(around: Surrounded, method: str, path: str) -> None:
    answer = await around.client.request(method, path)
    assert answer.status_code == 405
