"""The whole control plane with one deployment, whose replica is one that runs already.

Run as `python -m benchmarks.serverless.gateway_process DATA_DIR REPLICA_URL`; the URL and a key are
in DATA_DIR/connection.json once it serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.serverless.realtime import run_first

from tidegate.spec import Mode, Task
from tidegate_controlplane.data_dir import listen
from tidegate_controlplane.gateway.catalog import Served
from tidegate_controlplane.gateway.endpoints import Endpoint
from tidegate_controlplane.http_server import serve_http
from tidegate_controlplane.process import running
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store.tables import DEFAULT_PROJECT

CAPACITY = 100_000
"""Nothing is to be held here: the gateway itself is measured."""
NAME = "smol"


async def main(data_dir: Path, replica_url: str) -> None:
    """Serve until SIGTERM."""
    settings = Settings(data_dir=data_dir, port=0)
    served = Served(
        "dep_bench", DEFAULT_PROJECT, NAME, Mode.REALTIME, Task.GENERATE, datetime.now(UTC)
    )
    with contextlib.closing(listen(settings.host, settings.port)) as listener:
        async with running(settings) as (services, work):
            services.catalog.put(served)
            services.endpoints.publish(
                served.deployment_id, [Endpoint("rep_bench", replica_url, "token", CAPACITY)]
            )
            await serve_http(services, work, listener)


if __name__ == "__main__":
    run_first()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)  # the access log costs time too
    logging.getLogger("httpx").setLevel(logging.WARNING)
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
