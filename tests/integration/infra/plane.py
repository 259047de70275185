"""One control plane as a process of its own: `plane.py SETTINGS_JSON`, with played replicas."""

from __future__ import annotations

import asyncio
import sys
from contextlib import closing
from pathlib import Path

from tidegate_controlplane.data_dir import listen
from tidegate_controlplane.http_server import serve_http
from tidegate_controlplane.process import running
from tidegate_controlplane.provision.start import SpawningStarter
from tidegate_controlplane.settings import Settings

REPLICA = (sys.executable, str(Path(__file__).with_name("replica.py")))


async def main() -> None:
    settings = Settings.model_validate_json(sys.argv[1])
    with closing(listen(settings.host, settings.port)) as listener:
        async with running(settings, SpawningStarter(REPLICA)) as (services, work):
            await serve_http(services, work, listener)


if __name__ == "__main__":
    asyncio.run(main())
