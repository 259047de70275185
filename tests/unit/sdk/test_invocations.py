"""Invocations through the SDK and the CLI, against a canned server."""

from __future__ import annotations

import inspect
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from tidegate import AsyncClient, Client, ConfigurationError, ConnectionFailed, InvocationFailed
from tidegate.cli.app import app
from tidegate.routes import invocations

INV = "/v1/invocations/inv_1"


@pytest.fixture(params=[Client, AsyncClient], ids=["waited", "awaited"])
def client(request: pytest.FixtureRequest, canned: Any) -> Any:
    return request.param("http://tide", "tg_k", max_retries=0, transport=canned.transport())


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invocations, "RECONNECT_S", 0.0)


async def got(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def items(stream: Any) -> list[Any]:
    return [item async for item in stream] if hasattr(stream, "__aiter__") else list(stream)


def state(number: int, invocation: dict[str, Any]) -> str:
    data = json.dumps({"type": "state", "invocation": invocation})
    return f"id: {number}\nevent: state\ndata: {data}\n\n"


def text(said: str) -> str:
    data = json.dumps({"type": "text", "attempt": 1, "index": 0, "text": said})
    return f"event: text\ndata: {data}\n\n"


def stream(*parts: str) -> httpx.Response:
    return httpx.Response(200, text="".join(parts), headers={"content-type": "text/event-stream"})


DONE = "data: [DONE]\n\n"


async def test_terms_go_with_the_request(client: Any, canned: Any, shapes: Any) -> None:
    canned.on("POST", "/v1/invocations", httpx.Response(202, json=shapes.invocation("queued")))
    work = client.model("smol").submit("x", deadline_s=60, priority=-2, max_attempts=1)
    assert (await got(work)).id == "inv_1"
    assert canned.asked[0].query == {"deadline_s": "60", "priority": "-2", "max_attempts": "1"}


async def test_a_file_is_sent_as_it_is_and_again_from_its_beginning(
    canned: Any, shapes: Any, tmp_path: Path
) -> None:
    body = json.dumps({"model": "smol", "input": ["x" * 1000] * 300}).encode()
    path = tmp_path / "body.json"
    path.write_bytes(body)
    lost = httpx.ReadError("cut")
    for kind in (Client, AsyncClient):
        accepted = httpx.Response(202, json=shapes.invocation("queued"))
        canned.asked.clear()
        canned.on("POST", "/v1/invocations", lost, accepted)
        client = kind("http://tide", "tg_k", max_retries=1, transport=canned.transport())
        await got(client.invocations.submit_file(path, timeout_s=5))
        first, second = canned.asked
        assert second.content == body
        assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
        assert second.headers["content-type"] == "application/json"
        assert second.query == {"timeout_s": "5"}
        with pytest.raises(ConfigurationError, match=r"absent\.json"):
            await got(client.invocations.submit_file(tmp_path / "absent.json"))


async def test_events_come_until_the_end(client: Any, canned: Any, shapes: Any) -> None:
    canned.on("GET", INV, shapes.invocation("queued"))
    done = shapes.invocation("succeeded")
    canned.on("GET", f"{INV}/events", stream(text("Pa"), text("ris"), state(7, done), DONE))
    invocation = await got(client.invocations.get("inv_1"))
    events = await items(invocation.events())
    assert [event.text for event in events[:2]] == ["Pa", "ris"]
    assert events[2].invocation.status == "succeeded"


async def test_a_broken_stream_of_events_goes_on_after_the_last_state(
    client: Any, canned: Any, shapes: Any
) -> None:
    running, done = shapes.invocation("running"), shapes.invocation("succeeded")
    canned.on("GET", INV, shapes.invocation("queued"))
    canned.on(
        "GET",
        f"{INV}/events",
        stream(state(5, running), text("Pa")),
        httpx.ReadError("cut"),
        stream(state(7, done), DONE),
    )
    invocation = await got(client.invocations.get("inv_1"))
    events = await items(invocation.events())
    assert [event.type for event in events] == ["state", "text", "state"]
    asked = [one.headers.get("last-event-id") for one in canned.asked[1:]]
    assert asked == [None, "5", "5"]


async def test_a_stream_that_never_has_news_is_given_up(
    client: Any, canned: Any, shapes: Any
) -> None:
    canned.on("GET", INV, shapes.invocation("queued"))
    canned.on("GET", f"{INV}/events", stream())
    invocation = await got(client.invocations.get("inv_1"))
    with pytest.raises(ConnectionFailed):
        await items(invocation.events())
    assert len(canned.asked) == 2 + invocations.RECONNECTS


async def test_the_bytes_of_a_result_are_read_on_where_they_broke_off(
    client: Any, canned: Any, shapes: Any
) -> None:
    class Cut(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self) -> Any:
            yield b"0123"
            raise httpx.ReadError("cut")

        async def __aiter__(self) -> Any:
            yield b"0123"
            raise httpx.ReadError("cut")

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == INV:
            return httpx.Response(200, json=shapes.invocation("succeeded"))
        start = request.headers.get("range")
        if start is None:
            return httpx.Response(200, stream=Cut())
        assert start == "bytes=4-"
        return httpx.Response(206, content=b"456789")

    kind = type(client)
    cut = kind("http://tide", "k", max_retries=0, transport=httpx.MockTransport(answer))
    invocation = await got(cut.invocations.get("inv_1"))
    assert b"".join(await items(invocation.content())) == b"0123456789"


async def test_there_are_no_bytes_of_what_has_no_result(
    client: Any, canned: Any, shapes: Any
) -> None:
    canned.on("GET", INV, shapes.invocation("dead"))
    invocation = await got(client.invocations.get("inv_1"))
    with pytest.raises(InvocationFailed):
        await items(invocation.content())


async def test_one_is_redriven_or_all_page_by_page(client: Any, canned: Any, shapes: Any) -> None:
    canned.on("GET", INV, shapes.invocation("dead"))
    canned.on("POST", f"{INV}/redrive", shapes.invocation("queued"))
    pages = {"redriven": 3, "last_id": "inv_9", "has_more": True}, {"redriven": 1, "last_id": "x"}
    canned.on("POST", "/v1/invocations/redrive", *pages)
    invocation = await got(client.invocations.get("inv_1"))
    assert (await got(invocation.redrive())).status == "queued"
    assert await got(client.invocations.redrive("failed", "smol")) == 4
    asked = [one.json for one in canned.asked if one.path.endswith("ns/redrive")]
    assert asked == [
        {"status": "failed", "model": "smol", "limit": 1000},
        {"status": "failed", "model": "smol", "limit": 1000, "after": "inv_9"},
    ]


# --- the command line -----------------------------------------------------------------------------


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["work", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_list_shows_states_and_causes(served: Any, shapes: Any) -> None:
    error = {"message": "out of memory", "type": "server_error"}
    served.on("GET", "/v1/invocations", {"data": [shapes.invocation("dead", error=error)]})
    shown = run("list", "--status", "dead", "--model", "smol")
    assert "inv_1" in shown.stdout and "out of memory" in shown.stdout
    assert served.asked[0].query == {"status": "dead", "model": "smol", "limit": "100"}
    assert json.loads(run("list", "--json").stdout)[0]["id"] == "inv_1"


def test_show_tells_what_each_attempt_ended_with(served: Any, shapes: Any) -> None:
    error = {"message": "full", "type": "server_error", "code": "oom"}
    attempt = {"attempt": 1, "started_at": 1, "ended_at": 2, "replica_id": "rep_9", "error": error}
    served.on("GET", INV, shapes.invocation("dead", attempts=[attempt], error=error))
    shown = run("show", "inv_1").stdout
    assert "inv_1 is dead: full" in shown
    assert "rep_9" in shown and "oom: full" in shown


def test_result_writes_the_answer_as_it_is(served: Any, shapes: Any, tmp_path: Path) -> None:
    served.on("GET", INV, shapes.invocation("succeeded"))
    served.on("GET", f"{INV}/result", httpx.Response(200, content=b'{"a":  1}'))
    assert run("result", "inv_1").stdout == '{"a":  1}'
    path = tmp_path / "answer.json"
    assert run("result", "inv_1", "-o", str(path)).stdout == ""
    assert path.read_bytes() == b'{"a":  1}'


def test_cancel_and_redrive_say_what_it_is_now(served: Any, shapes: Any) -> None:
    served.on("GET", INV, shapes.invocation("dead"))
    served.on("POST", f"{INV}/cancel", shapes.invocation("canceled"))
    served.on("POST", f"{INV}/redrive", shapes.invocation("queued"))
    served.on("POST", "/v1/invocations/redrive", {"redriven": 2})
    assert run("cancel", "inv_1").stdout == "inv_1 is canceled\n"
    assert run("redrive", "inv_1").stdout == "inv_1 is queued\n"
    assert run("redrive", "--status", "dead").stdout == "2 invocations are queued again\n"
    assert run("redrive").exit_code == 2
    assert run("redrive", "inv_1", "--status", "dead").exit_code == 2


def test_watch_reads_along_and_ends_with_the_state(served: Any, shapes: Any) -> None:
    running, done = shapes.invocation("running"), shapes.invocation("succeeded")
    served.on("GET", INV, running)
    parts = [state(5, running), text("Pa"), text("ris"), state(7, done), DONE]
    served.on("GET", f"{INV}/events", stream(*parts))
    shown = run("watch", "inv_1")
    assert (shown.exit_code, shown.stdout) == (0, "Paris\n")
    assert "inv_1 is succeeded" in shown.stderr
    lines = run("watch", "inv_1", "--json").stdout.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["state", "text", "text", "state"]


def test_watching_one_that_dies_ends_with_status_one(served: Any, shapes: Any) -> None:
    served.on("GET", INV, shapes.invocation("running"))
    served.on("GET", f"{INV}/events", stream(state(7, shapes.invocation("dead")), DONE))
    shown = run("watch", "inv_1")
    assert shown.exit_code == 1
    assert "error: " in shown.stderr


def test_a_file_that_is_open_may_be_sent_too(served: Any, shapes: Any) -> None:
    served.on("POST", "/v1/invocations", httpx.Response(202, json=shapes.invocation("queued")))
    with Client() as client:
        client.invocations.submit_file(io.BytesIO(b'{"model": "smol"}'))
    assert served.asked[0].content == b'{"model": "smol"}'
