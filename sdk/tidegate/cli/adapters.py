"""`adapters add|ls|remove`: LoRA adapters of a deployment, while it serves."""

from __future__ import annotations

from typing import Annotated

import typer

from tidegate.cli.options import Json, Name, connected
from tidegate.cli.output import note, say, say_json, table

app = typer.Typer(help="LoRA adapters of a deployment.", no_args_is_help=True)
Adapter = Annotated[str, typer.Argument(help="The adapter's name.")]


@app.command()
def add(
    name: Name,
    adapter: Adapter,
    source: Annotated[
        str, typer.Argument(help="A directory, s3://bucket/prefix or hf://org/name.")
    ],
    as_json: Json = False,
) -> None:
    """Serve an adapter as MODEL:ADAPTER from now on; replicas go on, and load it when asked."""
    with connected() as client:
        deployment = client.deployments.get(name).add_adapter(adapter, source)
        found = client.plan(deployment.spec).warnings
    for warning in found:
        if warning.startswith(f"runtime.adapters.{adapter}:"):
            note(f"warning: {warning}")
    if as_json:
        say_json(deployment.view)
    else:
        say(f"{name}:{adapter} is served from {deployment.spec.runtime.adapters[adapter]}")


@app.command()
def ls(name: Name, as_json: Json = False) -> None:
    """List a deployment's adapters."""
    with connected() as client:
        found = client.deployments.get(name).spec.runtime.adapters
    if as_json:
        say_json(found)
        return
    rows = [(f"{name}:{adapter}", source) for adapter, source in sorted(found.items())]
    table(("model", "source"), rows, empty=f"{name} has no adapters")


@app.command()
def remove(name: Name, adapter: Adapter, as_json: Json = False) -> None:
    """Serve an adapter no longer; requests that have begun end with it."""
    with connected() as client:
        deployment = client.deployments.get(name).remove_adapter(adapter)
    if as_json:
        say_json(deployment.view)
    else:
        say(f"{name}:{adapter} is no longer served")
