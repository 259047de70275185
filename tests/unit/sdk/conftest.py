"""A canned Tidegate: answers from a table, keeps what it was asked; a transport or a port."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

NOW = "2026-01-02T03:04:05Z"


@dataclass
class Asked:
    """One request that arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Canned:
    """`on(method, path, *answers)`: each request takes the next answer, the last one stays.

    An answer is JSON, an `httpx.Response`, an exception to raise, or a function of the request.
    """

    asked: list[Asked] = field(default_factory=list)
    _answers: dict[tuple[str, str], list[Any]] = field(default_factory=dict)

    def on(self, method: str, path: str, *answers: Any) -> None:
        self._answers[method, path] = list(answers)

    def paths(self, method: str) -> list[str]:
        return [asked.path for asked in self.asked if asked.method == method]

    def answer(self, asked: Asked) -> httpx.Response:
        self.asked.append(asked)
        answers = self._answers.get((asked.method, asked.path))
        if answers is None:
            return httpx.Response(404, json=problem(404, "not_found", f"no {asked.path}"))
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if callable(answer):
            answer = answer(asked)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):
            return httpx.Response(answer.status_code, headers=answer.headers, content=answer.read())
        return httpx.Response(200, json=answer)

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._from_httpx)

    def _from_httpx(self, request: httpx.Request) -> httpx.Response:
        headers = dict(request.headers)
        query = dict(request.url.params)
        return self.answer(
            Asked(request.method, request.url.path, query, headers, _body_of(request))
        )


def _body_of(request: httpx.Request) -> bytes:
    try:
        return request.content
    except httpx.RequestNotRead:
        return b"".join(request.stream)  # type: ignore[arg-type]


def problem(status: int, code: str, detail: str, **more: Any) -> dict[str, Any]:
    return {
        "type": f"urn:tidegate:problem:{code}",
        "title": code,
        "status": status,
        "detail": detail,
        "code": code,
        **more,
    }


def deployment_view(name: str = "smol", phase: str = "ready", **more: Any) -> dict[str, Any]:
    return {
        "id": "dep_1",
        "name": name,
        "mode": "serverless",
        "phase": phase,
        "message": "",
        "spec": {"name": name, "model": {"source": "/models/smol.gguf"}, "mode": "serverless"},
        "generation": 1,
        "observed_generation": 1,
        "revision": "rev_1",
        "replicas": {"desired": 1, "ready": 1},
        "conditions": [],
        "created_at": NOW,
        "updated_at": NOW,
        **more,
    }


def chat_completion(text: str) -> dict[str, Any]:
    return {
        "id": "chat_1",
        "object": "chat.completion",
        "created": 1,
        "model": "smol",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }


def chunk(text: str) -> dict[str, Any]:
    return {
        "id": "chat_1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "smol",
        "choices": [{"index": 0, "delta": {"content": text}}],
    }


def sse(*events: Any, done: bool = True) -> httpx.Response:
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    text = ": heartbeat\n\n" + "".join(lines) + ("data: [DONE]\n\n" if done else "")
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, text=text)


def invocation(status: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "inv_1",
        "model": "smol",
        "endpoint": "/v1/chat/completions",
        "status": status,
        "created_at": 1,
        **more,
    }


def batch(status: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "batch_1",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file_in",
        "completion_window": "24h",
        "status": status,
        "created_at": 1,
        **more,
    }


def file_object(file_id: str = "file_in") -> dict[str, Any]:
    return {"id": file_id, "bytes": 1, "created_at": 1, "filename": "f", "purpose": "batch"}


@dataclass(frozen=True)
class Shapes:
    """The builders above, as tests reach them."""

    problem: Callable[..., dict[str, Any]] = problem
    deployment: Callable[..., dict[str, Any]] = deployment_view
    chat: Callable[[str], dict[str, Any]] = chat_completion
    chunk: Callable[[str], dict[str, Any]] = chunk
    sse: Callable[..., httpx.Response] = sse
    invocation: Callable[..., dict[str, Any]] = invocation
    batch: Callable[..., dict[str, Any]] = batch
    file: Callable[..., dict[str, Any]] = file_object


@pytest.fixture
def shapes() -> Shapes:
    return Shapes()


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No profile, no variables: nothing of the developer's own machine reaches a test."""
    for name in ("TIDEGATE_URL", "TIDEGATE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def canned() -> Canned:
    return Canned()


@pytest.fixture
def served(canned: Canned, monkeypatch: pytest.MonkeyPatch) -> Iterator[Canned]:
    """The canned server on a real port, where the environment points."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            url = httpx.URL(self.path)
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length) if length else self._chunks()
            headers = {name.lower(): value for name, value in self.headers.items()}
            response = canned.answer(Asked(self.command, url.path, dict(url.params), headers, body))
            self.send_response(response.status_code)
            for name, value in response.headers.items():
                if name != "content-length":
                    self.send_header(name, value)
            self.send_header("content-length", str(len(response.content)))
            self.end_headers()
            self.wfile.write(response.content)

        def _chunks(self) -> bytes:
            if self.headers.get("transfer-encoding") != "chunked":
                return b""
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def log_message(self, *args: Any) -> None:
            pass

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("TIDEGATE_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("TIDEGATE_API_KEY", "tg_test")
    yield canned
    server.shutdown()
    thread.join()
    server.server_close()
