"""One replica from its first port to its last request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from tidegate.protocol.replica import (
    EXIT_CRASHED,
    EXIT_DRAINED,
    EXIT_REFUSED,
    ReplicaConfig,
    ReplicaState,
)
from tidegate.telemetry.traces import open_tracer
from tidegate_runtime.artifact.prepare import prepare
from tidegate_runtime.artifact.resolve import check_digest, resolve
from tidegate_runtime.errors import EngineDead, ModelRefused, ReplicaUnavailable
from tidegate_runtime.server.app import create_app
from tidegate_runtime.server.front import Front
from tidegate_runtime.server.lifecycle import Lifecycle
from tidegate_runtime.server.metrics import Metrics
from tidegate_runtime.server.replica import Replica
from tidegate_runtime.server.status import StatusFile

if TYPE_CHECKING:
    from tidegate_runtime.engine.engine import Engine
    from tidegate_runtime.server.inherited import Inherited
    from tidegate_runtime.server.ranks import Ranks

log = logging.getLogger(__name__)

_LAST_ANSWERS_S = 2.0


def bind(host: str, port: int) -> socket.socket:
    """A bound socket. Raises ReplicaUnavailable when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, since asyncio turns Nagle off only for sockets that say they are TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ReplicaUnavailable(
            "PortTaken",
            f"cannot listen on {host}:{port} ({error.strerror}); free the port, or use port 0",
        ) from error
    return listener


async def run(
    config: ReplicaConfig,
    front: Front,
    listener: socket.socket,
    status: StatusFile,
    inherited: Inherited | None = None,
    ranks: Ranks | None = None,
) -> int:
    """Serve until drained or failed; returns the exit status.

    HTTP answers from the start, so a prober sees `loading` while a thread loads the model.
    """
    lifecycle = Lifecycle(status, int(listener.getsockname()[1]))
    metrics = Metrics(config.model_name)
    tracer = open_tracer(
        config.telemetry.otlp_endpoint,
        "tidegate-replica",
        replica=config.replica_id,
        deployment=config.model_name,
    )
    metrics.gauge(
        "tidegate_requests_in_flight",
        "Requests that are being answered.",
        lambda: lifecycle.in_flight,
    )
    replica = Replica(config, lifecycle, metrics, tracer)
    server = _Server(
        uvicorn.Config(
            create_app(replica, front),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(_LAST_ANSWERS_S),
        )
    )
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, lifecycle.drain)
    lifecycle.to(ReplicaState.LOADING)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    engine_ready: asyncio.Future[Engine | None] = loop.create_future()
    threading.Thread(
        target=_load, args=(replica, loop, engine_ready, inherited, ranks), name="load", daemon=True
    ).start()
    draining = asyncio.create_task(_drain(replica, engine_ready))
    await lifecycle.ended.wait()
    if lifecycle.exit_code == EXIT_CRASHED:
        # Callers of a dead engine get their error, and a prober a chance to see 503.
        await lifecycle.idle(_LAST_ANSWERS_S)
    draining.cancel()
    server.should_exit = True
    await serving
    await asyncio.to_thread(tracer.close)
    return lifecycle.exit_code


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: a signal drains the replica, it does not cut it off."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _load(
    replica: Replica,
    loop: asyncio.AbstractEventLoop,
    engine_ready: asyncio.Future[Engine | None],
    inherited: Inherited | None,
    ranks: Ranks | None,
) -> None:
    """Load the model in a thread of its own, and tell the event loop how it went."""
    lifecycle = replica.lifecycle

    def fail(reason: str, message: str, exit_code: int) -> None:
        with contextlib.suppress(RuntimeError):  # the loop ended while we loaded
            loop.call_soon_threadsafe(lifecycle.fail, reason, message, exit_code)

    def on_death(error: EngineDead) -> None:
        fail("EngineDead", error.message, EXIT_CRASHED)

    def say(message: str) -> None:
        log.info("build: %s", message)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lifecycle.say, message)

    try:
        engine: Engine | None = None
        if replica.config.task != "generate":
            load_encoder(replica)
        else:
            # Before torch is imported: a build needs the cores, and a refusal should come early.
            held = prepare(replica.config, say, inherited.shelf if inherited else None)
            from tidegate_runtime.chat.renderer import Renderer
            from tidegate_runtime.server import loading

            replica.generate, engine = loading.load_generate(
                replica.config,
                held.artifact,
                replica.metrics,
                on_death,
                warm=inherited.shelf.model(held.artifact) if inherited else None,
                renderer=Renderer(start=inherited.templates.start) if inherited else None,
                ranks=ranks,
            )
    except ModelRefused as error:
        fail(error.reason, error.message, EXIT_REFUSED)
    except ReplicaUnavailable as error:
        fail(error.reason, error.message, EXIT_CRASHED)
    except Exception as error:
        log.exception("loading failed")
        fail("Crashed", f"loading failed: {type(error).__name__}: {error}", EXIT_CRASHED)
    else:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_become_ready, lifecycle, engine_ready, engine)


def load_encoder(replica: Replica) -> None:
    """The services of a model that embeds or reranks. Raises ModelRefused, ReplicaUnavailable."""
    resolved = resolve(
        replica.config.source, replica.config.revision, Path(replica.config.cache_dir)
    )
    check_digest(resolved, replica.config.source_digest)
    from tidegate_runtime.server import encoders, loading

    loading.use_threads(replica.config.threads)
    replica.embed, replica.rank = encoders.load_encode(
        replica.config, resolved.files, replica.metrics
    )


def _become_ready(
    lifecycle: Lifecycle, engine_ready: asyncio.Future[Engine | None], engine: Engine | None
) -> None:
    engine_ready.set_result(engine)
    if lifecycle.state is ReplicaState.LOADING:
        lifecycle.to(ReplicaState.READY)


async def _drain(replica: Replica, engine_ready: asyncio.Future[Engine | None]) -> None:
    """Once asked to drain: wait for what is in flight, but no longer than the deadline."""
    lifecycle, drain_s = replica.lifecycle, replica.config.drain_s
    await lifecycle.draining.wait()
    is_idle = await lifecycle.idle(drain_s)
    if engine_ready.done() and (engine := engine_ready.result()) is not None:
        why = f"the replica stopped before this answer was finished (drain_s {drain_s:g})"
        await asyncio.to_thread(engine.stop, why)
    if not is_idle:
        await lifecycle.idle(_LAST_ANSWERS_S)
    lifecycle.end(EXIT_DRAINED)
