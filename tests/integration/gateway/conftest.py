"""The real application on a loopback port, and replicas that do what a test tells them."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import starmap
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import uvicorn
from litestar import Litestar, get

from tidegate.protocol.resources import ApiKeyRequest, KeyRole
from tidegate.spec import Mode, Task
from tidegate_controlplane.access.keys import KeyService
from tidegate_controlplane.access.pepper import load_pepper
from tidegate_controlplane.access.quota import Quotas
from tidegate_controlplane.api import metrics as metrics_routes
from tidegate_controlplane.api import profiles as profile_routes
from tidegate_controlplane.app import Services, build_app
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.gateway import probe, routes
from tidegate_controlplane.gateway.catalog import Adapter, Catalog, Served
from tidegate_controlplane.gateway.endpoints import Demand, Endpoint, Endpoints
from tidegate_controlplane.gateway.forward import Forwarder
from tidegate_controlplane.gateway.metrics import Metrics
from tidegate_controlplane.gateway.profiler import Profiler
from tidegate_controlplane.gateway.replica_client import ReplicaClient
from tidegate_controlplane.gateway.shadow import Copier
from tidegate_controlplane.gateway.trials import Trials
from tidegate_controlplane.gateway.usage import UsageBook
from tidegate_controlplane.gateway.watch import Watch
from tidegate_controlplane.settings import LimitSettings, Settings
from tidegate_controlplane.store.sqlite import SqliteDatabase
from tidegate_controlplane.store.tables import DEFAULT_PROJECT

LIMITS = LimitSettings(
    sync_body_bytes=64 * 1024,
    hold_queue=2,
    hold_s=60,
    reader_stall_s=0.5,
    invocation_run_s=60,
)


PATIENT = aiohttp.ClientTimeout(total=60)
"""A machine that is busy with something else makes no replica of a test hang."""


@asynccontextmanager
async def serve(app: Any) -> AsyncIterator[str]:
    """An ASGI application on a free loopback port."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=0,
            log_config=None,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


# --- replicas -------------------------------------------------------------------------------------


class Dies:
    """The replica's process ends: its connection is reset."""


Part = bytes | float | Dies | asyncio.Event
"""Bytes to send, seconds to sleep, an end, an event to wait for."""


@dataclass
class Script:
    """What a replica answers: a status, then parts one after the other."""

    parts: list[Part]
    status: int = 200
    media_type: str = "application/json"

    @classmethod
    def json(cls, content: Any, status: int = 200) -> Script:
        return cls([json.dumps(content).encode()], status=status)

    @classmethod
    def error(cls, status: int) -> Script:
        return cls.json({"error": {"message": "no", "type": "x", "code": "no"}}, status)

    @classmethod
    def stream(cls, *parts: Part) -> Script:
        return cls(list(parts), media_type="text/event-stream")


@dataclass
class Replica:
    """A real HTTP server that answers every request by its script and remembers what it was asked.

    It speaks HTTP by hand, because it has to do what no server library does: die at any byte.
    """

    id: str
    script: Script
    url: str = ""
    token: str = "replica-token"
    asked: list[Any] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    """Of what it was asked."""
    adapters: Script = field(default_factory=lambda: Script.json({}))
    """What it answers when it is told of an adapter."""
    headers: list[dict[str, str]] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    sent_bytes: int = 0
    is_hung: bool = False
    """It accepts connections and says nothing, not even to a probe."""
    probes: int = 0
    was_left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client went away before its answer was whole."""

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Replica]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await self._read_and_answer(reader, writer)
        finally:
            writer.close()

    async def _read_and_answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        asked, *head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        is_probe = asked.startswith("GET /readyz")
        self.probes += is_probe
        if self.is_hung:
            await reader.read()
        if is_probe:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            return
        headers = {name.lower(): value for name, value in (line.split(": ") for line in head)}
        self.headers.append(headers)
        body = await reader.readexactly(int(headers["content-length"]))
        self.asked.append(json.loads(body))
        self.paths.append(asked.split()[1])
        await self._answer_while_connected(reader, writer)

    async def _answer_while_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        answering = asyncio.create_task(self._answer(writer))
        leaving = asyncio.create_task(reader.read(1))
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        self.running -= 1
        if not answering.done():
            self.was_left.set()
        answering.cancel()
        leaving.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        script = self.adapters if self.paths[-1] == "/adapters" else self.script
        is_begun = False
        for part in script.parts:
            if isinstance(part, asyncio.Event):
                await part.wait()
            elif isinstance(part, float):
                await asyncio.sleep(part)
            elif isinstance(part, Dies):
                await asyncio.sleep(0.02)
                writer.transport.abort()
                return
            else:
                if not is_begun:
                    writer.write(_head(script))
                    is_begun = True
                writer.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.sent_bytes += len(part)
                await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def _head(script: Script) -> bytes:
    return (
        f"HTTP/1.1 {script.status} X\r\ncontent-type: {script.media_type}\r\n"
        "transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    ).encode()


def event(content: Any) -> bytes:
    return b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"


def chunk(text: str, usage: Any = None) -> bytes:
    """One streamed piece of a chat answer, as a replica that reports usage sends it."""
    return event(
        {
            "id": "c1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "smol",
            "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
            "usage": usage,
        }
    )


USAGE = event(
    {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "smol",
        "choices": [],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }
)
DONE = b"data: [DONE]\n\n"
COMPLETION = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "smol",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Paris"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
}


# --- the platform ---------------------------------------------------------------------------------


@get("/api/v1/version", sync_to_thread=False)
def control_route() -> dict[str, str]:
    """Stands for the control plane's routes."""
    return {"version": "test"}


@get("/api/v1/broken", sync_to_thread=False)
def broken_route() -> dict[str, str]:
    raise RuntimeError("a secret of the inside")


@dataclass
class Platform:
    """The platform under test, and handles to its inside."""

    url: str
    app: Litestar
    services: Services
    admin_key: str
    key: str
    _replicas: Callable[[Replica], Awaitable[Replica]]
    trials: Trials

    # What the tests need of this file.
    Script = Script
    Dies = Dies
    chunk = staticmethod(chunk)
    event = staticmethod(event)
    USAGE, DONE, COMPLETION = USAGE, DONE, COMPLETION

    def deploy(
        self,
        name: str = "smol",
        mode: Mode = Mode.SERVERLESS,
        task: Task = Task.GENERATE,
        adapters: dict[str, str] | None = None,
    ) -> str:
        """A deployment without replicas; its id."""
        served = Served(
            deployment_id=f"dep_{name}",
            project_id=DEFAULT_PROJECT,
            name=name,
            mode=mode,
            task=task,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            adapters=tuple(starmap(Adapter, (adapters or {}).items())),
        )
        self.services.catalog.put(served)
        return served.deployment_id

    async def replica(self, script: Script, replica_id: str = "rep_a") -> Replica:
        """A replica that listens, not published yet."""
        return await self._replicas(Replica(replica_id, script))

    def publish(self, *replicas: Replica, deployment: str = "dep_smol") -> None:
        self.services.endpoints.publish(
            deployment, [Endpoint(r.id, r.url, r.token, capacity=4) for r in replicas]
        )

    async def ready(self, script: Script) -> Replica:
        """The deployment `smol` with one published replica."""
        self.deploy()
        replica = await self.replica(script)
        self.publish(replica)
        return replica

    def demand(self) -> Demand:
        return self.services.endpoints.demand("dep_smol")

    async def make_key(self, **fields: Any) -> str:
        """Another key of the project."""
        request = ApiKeyRequest(name="another", **fields)
        return (await self.services.keys.create(DEFAULT_PROJECT, request)).key

    def client(self, key: str | None = None) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {key or self.key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=60)

    def chat(self, **fields: Any) -> dict[str, Any]:
        """A chat request for `smol`."""
        return {"model": "smol", "messages": [{"role": "user", "content": "hi"}], **fields}


@pytest.fixture
def heartbeat_s() -> float:
    """No stream is that long in coming, however busy the machine is; `BEATS` has them come soon."""
    return 60.0


BEATS = pytest.mark.parametrize("heartbeat_s", [0.05])


@pytest.fixture
async def platform(
    tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch, heartbeat_s: float
) -> AsyncIterator[Platform]:
    monkeypatch.setattr(probe, "PATIENCE", PATIENT)
    limits = LIMITS.model_copy(update={"heartbeat_s": heartbeat_s})
    settings = Settings(data_dir=tmp_path, limits=limits)
    clock = SystemClock()
    shutil.copy(migrated, settings.database_path)
    database = SqliteDatabase(settings.database_path)
    keys = KeyService(database, load_pepper(settings.pepper_path), clock)
    endpoints = Endpoints(clock, hold_queue=LIMITS.hold_queue)
    watch = Watch(Metrics(), clock)
    async with AsyncExitStack() as stack:
        stack.callback(database.close)
        client = await stack.enter_async_context(ReplicaClient())
        missing: Any = None
        copier = Copier(client)
        stack.push_async_callback(copier.close)
        trials = Trials(clock, copier)
        catalog = Catalog()
        services = Services(
            settings=settings,
            clock=clock,
            database=database,
            endpoints=endpoints,
            catalog=catalog,
            keys=keys,
            quotas=Quotas(clock),
            usage=UsageBook(database, clock),
            watch=watch,
            forwarder=Forwarder(endpoints, client, clock, trials, watch),
            profiler=Profiler(catalog, endpoints, client),
            deployments=missing,
            offers=missing,
            files=missing,
            batches=missing,
            invocations=missing,
            webhooks=missing,
            rotation=missing,
            ready=asyncio.Event(),
        )
        handlers = [
            *routes.HANDLERS,
            *metrics_routes.HANDLERS,
            *profile_routes.HANDLERS,
            control_route,
            broken_route,
        ]
        app = build_app(services, handlers)

        async def listen(replica: Replica) -> Replica:
            return await stack.enter_async_context(replica.listening())

        admin_key = await keys.ensure_first()
        assert admin_key is not None
        request = ApiKeyRequest(
            name="plain", role=KeyRole.INFERENCE, requests_per_minute=None, tokens_per_minute=None
        )
        key = (await keys.create(DEFAULT_PROJECT, request)).key
        url = await stack.enter_async_context(serve(app))
        yield Platform(url, app, services, admin_key, key, listen, trials)
