"""A control plane's data plane as a process, or a replica that embeds as one.

`python large_process.py plane DATA_DIR REPLICA_URL` and `… replica FLOATS`; each says its URL (and
the plane its key) as one line of JSON on standard output, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from aiohttp import web

from tidegate.spec import Mode, Task
from tidegate_controlplane.access.keys import KeyService
from tidegate_controlplane.access.pepper import load_pepper
from tidegate_controlplane.access.quota import Quotas
from tidegate_controlplane.app import Services, build_app
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.gateway.catalog import Catalog, Served
from tidegate_controlplane.gateway.endpoints import Endpoint, Endpoints
from tidegate_controlplane.gateway.forward import Forwarder
from tidegate_controlplane.gateway.metrics import Metrics
from tidegate_controlplane.gateway.replica_client import ReplicaClient
from tidegate_controlplane.gateway.shadow import Copier
from tidegate_controlplane.gateway.trials import Trials
from tidegate_controlplane.gateway.usage import UsageBook
from tidegate_controlplane.gateway.watch import Watch
from tidegate_controlplane.objects.directory import DirectoryStore
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store.migrate import migrate
from tidegate_controlplane.store.sqlite import SqliteDatabase
from tidegate_controlplane.store.tables import DEFAULT_PROJECT
from tidegate_controlplane.work.routes import HANDLERS
from tidegate_controlplane.work.service import Work
from tidegate_controlplane.work.worker import Plane


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def until_told() -> None:
    await asyncio.to_thread(sys.stdin.read)


async def replica(floats: int) -> None:
    """Each text becomes as many numbers, the first of which is its length."""
    vector = ",".join(f"0.{10**15 + number * 987654321}" for number in range(1, floats))

    async def embed(request: web.Request) -> web.Response:
        texts = (await request.json())["input"]
        data = ",".join(
            f'{{"object":"embedding","index":{index},"embedding":[{len(text)}.0,{vector}]}}'
            for index, text in enumerate(texts)
        )
        usage = f'{{"prompt_tokens":{len(texts)},"total_tokens":{len(texts)}}}'
        answer = f'{{"object":"list","data":[{data}],"model":"e","usage":{usage}}}'
        return web.Response(text=answer, content_type="application/json")

    async def ready(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(client_max_size=8 << 20)
    app.router.add_post("/v1/embeddings", embed)
    app.router.add_get("/readyz", ready)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    say(url=f"http://127.0.0.1:{runner.addresses[0][1]}")
    await until_told()
    await runner.cleanup()


async def plane(data_dir: Path, replica_url: str) -> None:
    clock, settings = SystemClock(), Settings(data_dir=data_dir, shutdown_s=1)
    db = SqliteDatabase(settings.database_path)
    await asyncio.to_thread(migrate, db.writer)
    endpoints, catalog = Endpoints(clock, hold_queue=10), Catalog()
    served = Served("dep_e", DEFAULT_PROJECT, "e", Mode.REALTIME, Task.EMBED, datetime.now(UTC))
    catalog.put(served)
    endpoints.publish("dep_e", [Endpoint("rep_e", replica_url, "t", 4)])
    keys = KeyService(db, load_pepper(settings.pepper_path), clock)
    key = await keys.ensure_first()
    watch = Watch(Metrics(), clock)
    missing: Any = None
    async with ReplicaClient() as client:
        forwarder = Forwarder(endpoints, client, clock, Trials(clock, Copier(client)), watch)
        usage = UsageBook(db, clock)
        objects = DirectoryStore(settings.objects_dir)
        parts = Plane(db, objects, endpoints, forwarder, usage, clock, settings)
        async with Work(parts, catalog) as work:
            services = Services(
                settings=settings,
                clock=clock,
                database=db,
                endpoints=endpoints,
                catalog=catalog,
                keys=keys,
                quotas=Quotas(clock),
                usage=usage,
                watch=watch,
                forwarder=forwarder,
                profiler=missing,
                deployments=missing,
                offers=missing,
                files=work.files,
                batches=work.batches,
                invocations=work.invocations,
                webhooks=missing,
                rotation=work.rotation,
                ready=asyncio.Event(),
            )
            app = build_app(services, HANDLERS)
            config = uvicorn.Config(app, port=0, http="h11", log_config=None, access_log=False)
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            say(url=f"http://127.0.0.1:{port}", key=key)
            await until_told()
            server.should_exit = True
            await serving
    db.close()


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    if kind == "replica":
        asyncio.run(replica(int(arguments[0])))
    else:
        asyncio.run(plane(Path(arguments[0]), arguments[1]))
