"""Webhooks on a real database, delivered to a real HTTP server of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web
from sqlmodel import Session

from tidegate.protocol.webhooks import WebhookCreated, WebhookEvent, WebhookRequest
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.settings import LimitSettings, Settings, WebhookSettings
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.open import open_database
from tidegate_controlplane.store.tables import Batch, File, Invocation, Project
from tidegate_controlplane.webhooks.deliverer import delivering
from tidegate_controlplane.webhooks.secret import SecretBox
from tidegate_controlplane.webhooks.service import Webhooks

PROJECT = "prj_1"
PEPPER = bytes(32)
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class WallClock(SystemClock):
    """The machine's clock, whose wall time can be moved."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.ahead


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def event(self) -> str:
        return self.headers["webhook-id"]


Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """A server on loopback that remembers what it was sent and answers as it is told."""

    port: int = 0
    received: list[Received] = field(default_factory=list)
    behaviour: Behaviour | None = None
    statuses: list[int] = field(default_factory=list)
    """Of the next answers; 204 when there is none left."""
    most_at_once: int = 0
    _now: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        at = asyncio.get_running_loop().time()
        self.received.append(Received(request.path_qs, headers, body, at))
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            if self.behaviour is not None:
                return await self.behaviour(request)
        finally:
            self._now -= 1
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204)

    async def has(self, number: int) -> list[Received]:
        """What came, once it is so much."""
        await until(lambda: len(self.received) >= number)
        return self.received


@asynccontextmanager
async def receiving(host: str = "127.0.0.1"):
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()


async def until(good: Callable[[], Any], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not good():
            await asyncio.sleep(0.005)


@dataclass
class Post:
    """One data directory with webhooks, and what outlives a process."""

    settings: Settings
    db: Database
    clock: WallClock
    box: SecretBox
    hooks: Webhooks

    def with_settings(self, **changes: Any) -> Post:
        """The same, with other webhook settings."""
        webhooks = self.settings.webhooks.model_copy(update=changes)
        settings = self.settings.model_copy(update={"webhooks": webhooks})
        hooks = Webhooks(self.db, self.box, self.clock, settings)
        return Post(settings, self.db, self.clock, self.box, hooks)

    @asynccontextmanager
    async def delivering(self, look_up=None):
        async with delivering(self.db, self.box, self.clock, self.settings, look_up) as deliverer:
            self.hooks.on_due = deliverer.wake
            yield deliverer

    async def declare(
        self, url: str, events: list[str] | None = None, project: str = PROJECT
    ) -> WebhookCreated:
        wanted = list(WebhookEvent) if events is None else events
        return await self.hooks.create(project, WebhookRequest(url=url, events=wanted))

    async def deliveries(self, webhook_id: str, project: str = PROJECT) -> list[Any]:
        return (await self.hooks.deliveries(project, webhook_id, None, 100)).data

    async def ended(self, webhook_id: str, number: int = 1) -> list[Any]:
        """The deliveries, once `number` of them have ended."""
        async with asyncio.timeout(60):
            while True:
                found = await self.deliveries(webhook_id)
                if sum(one.status.is_final for one in found) >= number:
                    return found
                await asyncio.sleep(0.01)

    async def invocation(self, **values: Any) -> str:
        """One that waits in the queue; its id."""
        now = self.clock.now()
        good = {
            "id": new_id("inv"),
            "project_id": PROJECT,
            "deployment_id": "dep_m",
            "model": "m",
            "endpoint": "/v1/completions",
            "status": "queued",
            "timeout_s": 900.0,
            "request": b'{"prompt": "a secret prompt"}',
            "request_sha256": "0",
            "created_at": now,
            "available_at": now,
        }
        row = Invocation(**(good | values))
        await self.db.write(lambda session: session.add(row))
        return row.id

    async def batch(self, **values: Any) -> Batch:
        now = self.clock.now()
        file = File(
            id=new_id("file"),
            project_id=PROJECT,
            filename="in",
            purpose="batch",
            bytes=1,
            sha256="0",
            object_key="k",
            created_at=now,
        )
        good = {
            "id": new_id("batch"),
            "project_id": PROJECT,
            "status": "validating",
            "endpoint": "/v1/completions",
            "input_file_id": file.id,
            "completion_window": "24h",
            "created_at": now,
        }
        row = Batch(**(good | values))

        def unit(session: Session) -> None:
            session.add(file)
            session.flush()
            session.add(row)

        await self.db.write(unit)
        return row


@pytest.fixture
async def receiver():
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def post(tmp_path, database_url, receiver):
    settings = Settings(
        data_dir=tmp_path,
        database=database_url,
        shutdown_s=0.2,
        limits=LimitSettings(s3_buckets=("tidegate-test",)),
        webhooks=WebhookSettings(
            allow_http=True,
            allow_networks=LOOPBACK,
            ports=(receiver.port,),
            timeout_s=20,
            retry_base_s=0.02,
            retry_factor=1.1,
            tries=4,
            lease_s=21,
            poll_s=0.02,
        ),
    )
    db = open_database(settings.database, settings.database_path)
    with Session(db.writer) as session:
        for project in (PROJECT, "prj_2"):
            session.add(Project(id=project, name=project, created_at=datetime.now(UTC)))
        session.commit()
    clock, box = WallClock(), SecretBox(PEPPER)
    yield Post(settings, db, clock, box, Webhooks(db, box, clock, settings))
    db.close()


class Kit:
    """The words that the tests of this folder are written in."""

    until = staticmethod(until)
    receiving = staticmethod(receiving)
    project = PROJECT


@pytest.fixture
def kit():
    return Kit
