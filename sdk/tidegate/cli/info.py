"""`schema`, `demo-model`, `version`: things to know, no server needed."""

from __future__ import annotations

from typing import Annotated

import typer

from tidegate.cli.options import Json
from tidegate.cli.output import say, say_json
from tidegate.errors import TidegateError
from tidegate.local.demo_model import demo_model
from tidegate.spec import json_schema
from tidegate.version import VERSION

PROBE_TIMEOUT_S = 2.0


def register(app: typer.Typer) -> None:
    app.command()(schema)
    app.command("demo-model")(demo_model_)
    app.command()(version)
    app.callback()(options)


def _tell(asked: bool) -> None:
    if asked:
        say(f"tidegate {VERSION}")
        raise typer.Exit


def options(
    _asked: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version of this client.",
            callback=_tell,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Self-hosted serverless inference for language models."""


def schema(as_json: Json = False) -> None:  # noqa: ARG001 - JSON either way
    """Write the JSON Schema of a declaration, for editors."""
    say_json(json_schema())


def demo_model_(as_json: Json = False) -> None:
    """Write the path of the small model that comes with the demo."""
    path = str(demo_model())
    if as_json:
        say_json({"path": path})
    else:
        say(path)


def version(as_json: Json = False) -> None:
    """Write the version of this client, and of the server when one answers."""
    server = _server_version()
    if as_json:
        say_json({"client": VERSION, "server": server})
    else:
        say(f"tidegate {VERSION} (server: {server or 'none answers'})")


def _server_version() -> str | None:
    from tidegate.client import Client

    try:
        with Client(timeout=PROBE_TIMEOUT_S, max_retries=0) as client:
            return client.version().version
    except TidegateError:
        return None
