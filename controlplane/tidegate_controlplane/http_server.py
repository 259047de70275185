"""The HTTP server of the process: begun last, and the first to end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Iterator

import uvicorn
from litestar import Litestar

from tidegate_controlplane.app import Services, build_app
from tidegate_controlplane.background import background
from tidegate_controlplane.connection import connect
from tidegate_controlplane.routes import HANDLERS
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.work.service import Work

logger = logging.getLogger("tidegate")


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: this process ends in its own order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_http(
    services: Services, work: Work, listener: socket.socket, admin_key: str | None = None
) -> None:
    """Answer on `listener` until SIGTERM or SIGINT; then end what is in flight in order."""
    settings = services.settings
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    server = _Server(_http_config(build_app(services, HANDLERS), settings))
    await connect(services, url, admin_key)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # What the start has made stays: a full collection that walks it would stop every stream.
    gc.collect()
    gc.freeze()
    services.ready.set()
    logger.info("serving on %s, data in %s", url, settings.data_dir)
    async with background(server.serve(sockets=[listener]), "http") as serving:
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        logger.info("stopping: requests in flight may finish for %g s", settings.shutdown_s)
        services.ready.clear()
        services.endpoints.close()
        server.should_exit = True
        # Requests and durable work end within the same time; what is left is handed back.
        await asyncio.gather(serving, work.stop())


def _http_config(app: Litestar, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",  # which bounds a request's head; httptools does not
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.shutdown_s),
        timeout_keep_alive=75,
    )
