"""A process that carries out every batch of a data directory, with a replica that is a sleep.

Run as `python batch_process.py DATA_DIR LINES [KILL_AT]`. It begins a batch when there is none,
notes each request that a replica is asked in DATA_DIR/asked, and ends when the batch has ended, or
at once and without a word when KILL_AT of them are noted.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from tidegate.protocol.resources import KeyRole
from tidegate.protocol.work import BatchRequest
from tidegate.spec import Mode, Task
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.gateway.catalog import Catalog, Served
from tidegate_controlplane.gateway.endpoints import Endpoint, Endpoints
from tidegate_controlplane.gateway.forward import Answer
from tidegate_controlplane.objects.directory import DirectoryStore
from tidegate_controlplane.settings import Settings, WorkSettings
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.migrate import migrate
from tidegate_controlplane.store.sqlite import SqliteDatabase
from tidegate_controlplane.store.tables import Project
from tidegate_controlplane.work.files import Part
from tidegate_controlplane.work.service import Work
from tidegate_controlplane.work.worker import Plane

LINES = int(sys.argv[2])
KILL_AT = int(sys.argv[3]) if len(sys.argv) > 3 else None
PRINCIPAL = Principal("key_1", "prj_1", "one", KeyRole.ADMIN, None, None)
SERVED = Served("dep_m", "prj_1", "m", Mode.BATCH, Task.GENERATE, datetime.now(UTC))


class Replica:
    def __init__(self, endpoints: Endpoints, notes: Path) -> None:
        self.endpoints = endpoints
        self.notes = notes

    async def call(self, served, path, body, *, deadline, request_id, run_s=None, priority=None):
        prompt = json.loads(body)["prompt"]
        async with self.endpoints.acquire(served.deployment_id, deadline):
            with self.notes.open("a") as notes:
                notes.write(f"{prompt}\n")
            if KILL_AT is not None and len(self.notes.read_bytes().splitlines()) >= KILL_AT:
                os.kill(os.getpid(), signal.SIGKILL)
            await asyncio.sleep(0.01)
            return Answer(200, json.dumps({"text": f"echo {prompt}"}).encode())


class NoBook:
    def record(self, *_):
        pass


async def main(data_dir: Path) -> None:
    clock = SystemClock()
    settings = Settings(data_dir=data_dir, work=WorkSettings(poll_s=0.02))
    db = SqliteDatabase(settings.database_path)
    migrate(db.writer)
    endpoints = Endpoints(clock, hold_queue=10)
    endpoints.publish("dep_m", [Endpoint("rep_1", "http://nowhere", "t", 4)])
    catalog = Catalog()
    catalog.put(SERVED)
    plane = Plane(
        db=db,
        objects=DirectoryStore(settings.objects_dir),
        endpoints=endpoints,
        forwarder=Replica(endpoints, data_dir / "asked"),
        usage=NoBook(),
        clock=clock,
        settings=settings,
    )
    async with Work(plane, catalog, group_lines=10) as work:
        batch_id = await the_batch(db, work)
        while not (batch := await work.batches.get(PRINCIPAL, batch_id)).status.is_final:
            await asyncio.sleep(0.02)
        output = data_dir / "output.jsonl"
        _, pieces = await work.files.content(PRINCIPAL, batch.output_file_id)
        output.write_bytes(b"".join([piece async for piece in pieces]))
        (data_dir / "batch.json").write_text(batch.model_dump_json())
    db.close()


async def the_batch(db: Database, work: Work) -> str:
    if known := (await work.batches.list(PRINCIPAL, after=None, limit=2)).data:
        assert len(known) == 1
        return known[0].id

    def project(session):
        session.merge(Project(id="prj_1", name="one", created_at=datetime.now(UTC)))

    await db.write(project)
    file = await work.files.create(PRINCIPAL, form())
    wanted = BatchRequest(
        input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
    )
    return (await work.batches.create(PRINCIPAL, wanted)).id


async def form():
    async def lines():
        for number in range(LINES):
            line = {
                "custom_id": f"line-{number}",
                "method": "POST",
                "url": "/v1/completions",
                "body": {"model": "m", "prompt": f"prompt {number}"},
            }
            yield json.dumps(line).encode() + b"\n"

    async def purpose():
        yield b"batch"

    yield Part("file", "in.jsonl", lines())
    yield Part("purpose", None, purpose())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
