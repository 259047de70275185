"""Durable work on a real database file and a real object store, with replicas played by a class."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session

from tidegate.protocol.replica import Priority
from tidegate.protocol.resources import KeyRole
from tidegate.protocol.work import BatchRequest
from tidegate.spec import Mode, Task
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.gateway.catalog import Catalog, Served
from tidegate_controlplane.gateway.endpoints import Endpoint, Endpoints
from tidegate_controlplane.gateway.forward import Answer
from tidegate_controlplane.objects.base import ObjectStore
from tidegate_controlplane.objects.directory import DirectoryStore
from tidegate_controlplane.settings import LimitSettings, Settings, WorkSettings
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.open import open_database
from tidegate_controlplane.store.tables import Deployment, Invocation, Project
from tidegate_controlplane.work.files import Part
from tidegate_controlplane.work.invocations import Terms
from tidegate_controlplane.work.service import Work
from tidegate_controlplane.work.worker import Plane

CHAT = "/v1/chat/completions"


class WallClock(SystemClock):
    """The machine's clock, whose wall time can be moved."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return super().now() + self.ahead


def said(text: str) -> Answer:
    """A replica's answer."""
    document = {"text": text, "usage": {"prompt_tokens": 2, "completion_tokens": 3}}
    return Answer(200, json.dumps(document).encode())


def refused(status: int, code: str = "no") -> Answer:
    return Answer(status, json.dumps({"error": {"message": code, "code": code}}).encode())


Behaviour = Callable[[str], Awaitable[Answer]]


@dataclass
class Replicas:
    """Stands where the forwarder stands, and takes its places at the same table of endpoints."""

    endpoints: Endpoints
    asked: list[str] = field(default_factory=list)
    hung_up: list[str] = field(default_factory=list)
    priorities: set[Priority] = field(default_factory=set)
    most_at_once: int = 0
    behaviour: Behaviour | None = None

    async def call(
        self,
        served: Served,
        path: str,
        body: bytes,
        *,
        deadline: float,
        request_id: str,
        run_s: float | None = None,
        priority: Priority = Priority.SYNC,
    ) -> Answer:
        self.priorities.add(priority)
        prompt = json.loads(body)["messages"][0]["content"]
        async with self.endpoints.acquire(served.deployment_id, deadline):
            self.asked.append(prompt)
            in_flight = self.endpoints.demand(served.deployment_id).in_flight
            self.most_at_once = max(self.most_at_once, in_flight)
            try:
                if self.behaviour is not None:
                    return await self.behaviour(prompt)
            except asyncio.CancelledError:
                self.hung_up.append(prompt)
                raise
            return said(f"echo {prompt}")

    async def follow(self, listener: Any, served: Served, path: str, body: bytes, **how: Any):
        """As `call`, of a request that nobody reads along with."""
        listener.asked(f"rep_{served.name}")
        return await self.call(served, path, body, **how)


@dataclass
class Book:
    """Stands where the book of use stands."""

    records: list[tuple[str, str, str | None, int, int]] = field(default_factory=list)

    def record(
        self,
        project_id: str,
        served: Served,
        key_id: str | None,
        prompt_tokens: int,
        completion_tokens: int,
    ) -> None:
        self.records.append((project_id, served.name, key_id, prompt_tokens, completion_tokens))


@dataclass
class House:
    """One data directory, and what outlives a process: the database and the objects."""

    settings: Settings
    db: Database
    objects: ObjectStore
    clock: WallClock
    catalog: Catalog
    endpoints: Endpoints
    replicas: Replicas
    book: Book

    def with_work(self, **changes: Any) -> Settings:
        """Its settings, but for these of the durable work."""
        work = self.settings.work.model_copy(update=changes)
        return self.settings.model_copy(update={"work": work})

    def plane(self, **changes: Any) -> Plane:
        parts: dict[str, Any] = {
            "db": self.db,
            "objects": self.objects,
            "endpoints": self.endpoints,
            "forwarder": self.replicas,
            "usage": self.book,
            "clock": self.clock,
            "settings": self.settings,
        }
        return Plane(**(parts | changes))

    def work(self, group_lines: int = 2, **changes: Any) -> Work:
        """A process's worth of durable work."""
        return Work(self.plane(**changes), self.catalog, group_lines)

    @asynccontextmanager
    async def working(self, **changes: Any) -> AsyncIterator[Work]:
        async with self.work(**changes) as work:
            yield work

    async def deploy(
        self,
        name: str = "m",
        mode: Mode = Mode.REALTIME,
        *,
        capacity: int = 4,
        task: Task = Task.GENERATE,
        project: str = "prj_1",
    ) -> Served:
        """A living deployment; with `capacity`, one that has a ready replica."""
        served = Served(f"dep_{name}", project, name, mode, task, datetime.now(UTC))
        row = Deployment(
            id=served.deployment_id,
            project_id=served.project_id,
            name=name,
            mode=mode.value,
            spec={},
            plan={},
            conditions=[],
            revision_id="rev_1",
            phase="ready",
            created_at=served.created_at,
            updated_at=served.created_at,
        )
        await self.db.write(lambda session: session.add(row))
        self.catalog.put(served)
        self.replicas_of(served, capacity)
        return served

    def replicas_of(self, served: Served, capacity: int) -> None:
        """Give the deployment one ready replica, or none."""
        endpoint = Endpoint(f"rep_{served.name}", "http://nowhere", "t", capacity)
        self.endpoints.publish(served.deployment_id, [endpoint] if capacity else [])

    async def delete(self, served: Served) -> None:
        def unit(session):
            row = session.get(Deployment, served.deployment_id)
            row.deleted_at = self.clock.now()
            session.add(row)

        await self.db.write(unit)
        self.catalog.remove(served.project_id, served.name)
        self.endpoints.forget(served.deployment_id)

    async def submit(self, work: Work, prompt: str = "hi", model: str = "m", **terms: Any) -> str:
        """Submit a chat; the invocation's id."""
        accepted, _ = await work.invocations.submit(
            PRINCIPAL, chat_bytes(prompt, model), Terms(**terms)
        )
        return accepted.id

    async def upload(self, work: Work, content: bytes) -> str:
        file = await work.files.create(PRINCIPAL, form(content))
        return file.id

    async def row(self, invocation_id: str) -> Any:
        """The row as it is; None when there is none."""
        return await self.db.read(lambda session: session.get(Invocation, invocation_id))

    async def batch(self, work: Work, lines: list[Any]) -> str:
        """Upload `lines` (objects, or bytes as they are) and begin a batch; its id."""
        file_id = await self.upload(work, jsonl(lines))
        wanted = BatchRequest(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
        return (await work.batches.create(PRINCIPAL, wanted)).id

    async def ended(self, work: Work, batch_id: str, within_s: float = 60) -> Any:
        """The batch, once it is finished."""
        return await until(
            lambda: work.batches.get(PRINCIPAL, batch_id), lambda b: b.status.is_final, within_s
        )

    async def finished(self, work: Work, invocation_id: str) -> Any:
        found = await work.invocations.wait(PRINCIPAL, invocation_id, 60)
        assert found.status.is_final, found
        return found

    async def lines_of(self, work: Work, file_id: str | None) -> list[dict[str, Any]]:
        """The lines of an output or error file; none when there is no file."""
        if file_id is None:
            return []
        _, pieces = await work.files.content(PRINCIPAL, file_id)
        content = b"".join([piece async for piece in pieces])
        return [json.loads(line) for line in content.splitlines()]


PRINCIPAL = Principal("key_1", "prj_1", "one", KeyRole.ADMIN, None, None)
STRANGER = Principal("key_2", "prj_2", "two", KeyRole.ADMIN, None, None)


def chat(prompt: str, model: str = "m") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}]}


def chat_bytes(prompt: str, model: str = "m") -> bytes:
    return json.dumps(chat(prompt, model)).encode()


def line(custom_id: str, **changes: Any) -> dict[str, Any]:
    good = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": chat(custom_id)}
    return good | changes


def jsonl(lines: list[Any]) -> bytes:
    written = [text if isinstance(text, bytes) else json.dumps(text).encode() for text in lines]
    return b"".join(text + b"\n" for text in written)


async def once(value: bytes) -> AsyncIterator[bytes]:
    yield value


def form(content: bytes, purpose: str = "batch") -> AsyncIterator[Part]:
    return form_of(once(content), purpose)


async def form_of(data: AsyncIterator[bytes], purpose: str = "batch") -> AsyncIterator[Part]:
    yield Part("file", "input.jsonl", data)
    yield Part("purpose", None, once(purpose.encode()))


async def until(
    look: Callable[[], Awaitable[Any]], good: Callable[[Any], bool], within_s: float = 60
) -> Any:
    """What `look` finds once it is good; after a minute it is an error."""
    async with asyncio.timeout(within_s):
        while not good(found := await look()):
            await asyncio.sleep(0.01)
    return found


def open_house(data_dir: Path, database: str | None = None, **work: Any) -> House:
    """`database` is a PostgreSQL URL; without one there is a file."""
    pace = {
        "lease_s": 0.6,
        "heartbeat_s": 0.1,
        "poll_s": 0.02,
        "retry_base_s": 0.02,
        "retry_max_s": 0.05,
    }
    settings = Settings(
        data_dir=data_dir,
        database=database,
        limits=LimitSettings(inline_body_bytes=1024),
        work=WorkSettings(**(pace | work)),
        shutdown_s=0.2,
    )
    clock = WallClock()
    db = open_database(database, settings.database_path)
    endpoints = Endpoints(clock, hold_queue=100)
    return House(
        settings=settings,
        db=db,
        objects=DirectoryStore(settings.objects_dir),
        clock=clock,
        catalog=Catalog(),
        endpoints=endpoints,
        replicas=Replicas(endpoints),
        book=Book(),
    )


@pytest.fixture
async def house(tmp_path, database_url):
    house = open_house(tmp_path, database_url)
    with Session(house.db.writer) as session:
        for project in ("prj_1", "prj_2"):
            session.add(Project(id=project, name=project, created_at=datetime.now(UTC)))
        session.commit()
    yield house
    house.db.close()


class Kit:
    """The words that the tests of this folder are written in."""

    said = staticmethod(said)
    refused = staticmethod(refused)
    line = staticmethod(line)
    jsonl = staticmethod(jsonl)
    chat_bytes = staticmethod(chat_bytes)
    form = staticmethod(form)
    form_of = staticmethod(form_of)
    until = staticmethod(until)
    principal = PRINCIPAL
    stranger = STRANGER


@pytest.fixture
def kit():
    return Kit
