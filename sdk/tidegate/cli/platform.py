"""`up` and `down`: the platform on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from types import FrameType
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from tidegate.cli.options import Data, Json
from tidegate.cli.output import note, say, say_json
from tidegate.connection import Connection
from tidegate.errors import LocalError
from tidegate.local import launch, readiness
from tidegate.local.home import Home, default_data
from tidegate.local.launch import Start
from tidegate.local.process import ProcessId
from tidegate.local.readiness import Before
from tidegate.local.settings import settings_text
from tidegate.local.stop import stop
from tidegate.profile import Profile, profile_path, write_profile
from tidegate.telemetry.logs import LogFormat

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(settings)


def up(
    data: Data = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A YAML file of settings (docs/settings.md); other options are over it.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="0 takes any free one.  [default: 8686]"),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="The address to listen on.  [default: 127.0.0.1]")
    ] = None,
    objects: Annotated[
        str | None,
        typer.Option(help="s3://bucket/prefix for payloads and results, not the directory."),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(help="postgresql://user@host/name for all rows, not the SQLite file."),
    ] = None,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(help="How the platform logs; text is for people.  [default: json]"),
    ] = None,
    otlp_endpoint: Annotated[
        str | None, typer.Option(help="Send traces there by OTLP, as http://host:4318.")
    ] = None,
    encryption_key: Annotated[
        list[str] | None,
        typer.Option(
            help="Seal bodies and results: a key file, or kms:<key id>; again for older keys, the "
            "last one seals.",
            metavar="PLACE",
        ),
    ] = None,
    encryption_required: Annotated[
        bool, typer.Option("--encryption-required", help="Refuse to read what is not sealed.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave it running.")] = False,
    as_json: Json = False,
) -> None:
    """Start the platform on this machine; the CLI and SDK then use it."""
    home = Home.at(data or default_data(os.environ))
    running = home.process()
    if running is not None:
        _already(home, running, port, as_json=as_json)
        return
    launch.require_installed()
    home.create()
    start = Start(
        home,
        config=config,
        host=host,
        port=port,
        objects=objects,
        database=database,
        log_format=log_format,
        otlp_endpoint=otlp_endpoint or None,
        encryption_keys=encryption_key or (),
        encryption_required=encryption_required,
    )
    if detach:
        _up_detached(start, as_json=as_json)
    else:
        _up_foreground(start, as_json=as_json)


def settings() -> None:
    """Print every setting with its default, as a file for 'tidegate up --config'."""
    say(settings_text().rstrip("\n"))


def down(data: Data = None, as_json: Json = False) -> None:
    """Stop the platform on this machine; what it was given stays on disk."""
    home = Home.at(data or default_data(os.environ))
    running = home.process()
    if running is not None:
        stop(running, STOP_TIMEOUT_S)
    if as_json:
        say_json({"data": str(home.path), "stopped": running is not None})
    elif running is None:
        say(f"no platform is running on {home.path}")
    else:
        say(f"the platform on {home.path} has stopped (process {running.pid})")


def _up_detached(start: Start, *, as_json: bool) -> None:
    before = Before.look(start.home)
    process = launch.detached(start)
    try:
        connection = readiness.wait_ready(start, process, before, READY_TIMEOUT_S)
    except BaseException:
        launch.abandon(process)
        raise
    launch.release(process)
    _announce(start.home, connection, process.pid, as_json=as_json)


def _up_foreground(start: Start, *, as_json: bool) -> None:
    before = Before.look(start.home)
    process = launch.in_foreground(start)
    asked_to_stop = _pass_signals_on(process)
    try:
        connection = readiness.wait_ready(start, process, before, None)
    except readiness.Stopped:
        if asked_to_stop:
            return
        raise
    _announce(start.home, connection, process.pid, as_json=as_json)
    status = process.wait()
    if not asked_to_stop and status != 0:
        raise LocalError(f"the platform stopped by itself (exit {status})")


def _pass_signals_on(process: subprocess.Popen[bytes]) -> list[int]:
    """Ctrl-C and SIGTERM become the child's SIGTERM; the list fills with those that came."""
    seen: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        seen.append(number)
        process.terminate()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, forward)
    return seen


def _already(home: Home, running: ProcessId, port: int | None, *, as_json: bool) -> None:
    connection = home.connection()
    if connection is None:
        raise LocalError(
            f"a platform is already starting on {home.path} (process {running.pid}); wait for it, "
            "or stop it with 'tidegate down'"
        )
    if port and urlsplit(connection.url).port != port:
        raise LocalError(
            f"a platform is already running on {home.path} at {connection.url}, not on port "
            f"{port}; stop it with 'tidegate down --data {home.path}' first"
        )
    note(f"the platform on {home.path} is already running")
    _announce(home, connection, running.pid, as_json=as_json)


def _announce(home: Home, connection: Connection, pid: int, *, as_json: bool) -> None:
    profile = Profile(connection.url, connection.api_key, str(home.path))
    write_profile(profile_path(os.environ), profile)
    if as_json:
        facts: dict[str, Any] = {"url": connection.url, "api_key": connection.api_key}
        say_json(facts | {"data": str(home.path), "pid": pid})
        return
    say(f"Tidegate is up at {connection.url} (process {pid}, data in {home.path})")
    say(f"API key: {connection.api_key}")
    say("Next:")
    say('  tidegate deploy "$(tidegate demo-model)" --name smol --wait')
    say('  tidegate chat smol "What is the capital of France? Answer in one sentence."')
    say(f"  OpenAI clients: base_url={connection.url}/v1, model=smol")
