"""`scale`, `wake`, `delete`, `forget`, `models`, `usage`: run what is there."""

from __future__ import annotations

from typing import Annotated

import typer

from tidegate.cli.options import Json, Name, TimeoutS, connected
from tidegate.cli.output import say, say_json, table

MEBI = 1024 * 1024


def register(app: typer.Typer) -> None:
    for command in (scale, wake, delete, forget, models, usage):
        app.command()(command)


def scale(
    name: Name,
    minimum: Annotated[int | None, typer.Option("--min", min=0, help="Replicas at least.")] = None,
    maximum: Annotated[int | None, typer.Option("--max", min=1, help="Replicas at most.")] = None,
    as_json: Json = False,
) -> None:
    """Change the bounds on a deployment's replicas."""
    if minimum is None and maximum is None:
        raise typer.BadParameter("give --min, --max or both")
    with connected() as client:
        deployment = client.deployments.get(name).scale(min=minimum, max=maximum)
    bounds = deployment.spec.scaling
    if as_json:
        say_json(deployment.view)
    else:
        least = "its default" if bounds.min_replicas is None else bounds.min_replicas
        most = "its default" if bounds.max_replicas is None else bounds.max_replicas
        say(f"{name} now has at least {least} and at most {most} replicas")


def wake(name: Name, as_json: Json = False) -> None:
    """Start a replica before the first request asks for one; a failed deployment tries again."""
    with connected() as client:
        deployment = client.deployments.get(name).wake()
    if as_json:
        say_json(deployment.view)
    else:
        say(f"{name} is asked to wake; it is {deployment.phase.value}")


def delete(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until nothing runs.")] = True,
    timeout: TimeoutS = 300.0,
    as_json: Json = False,
) -> None:
    """Delete a deployment; its replicas finish what they have first."""
    with connected() as client:
        client.deployments.delete(name, wait=wait, timeout_s=timeout)
    if as_json:
        say_json({"name": name, "deleted": wait, "deleting": not wait})
    else:
        say(f"{name} is deleted" if wait else f"{name} is being deleted")


def forget(
    invocation_id: Annotated[str, typer.Argument(help="Its id, from 'invoke --no-wait'.")],
    as_json: Json = False,
) -> None:
    """Delete the request and the result of a finished invocation."""
    with connected() as client:
        deleted = client.invocations.delete(invocation_id)
    if as_json:
        say_json(deleted)
    else:
        say(f"the request and the result of {deleted.id} are deleted")


def models(as_json: Json = False) -> None:
    """List the models and their versions."""
    with connected() as client:
        found = list(client.models.list())
    if as_json:
        say_json(found)
        return
    rows = [
        (
            model.id,
            model.task,
            model.source,
            version.facts.format,
            f"{version.facts.parameters / 1e6:.0f}M",
            f"{version.facts.weights_bytes / MEBI:.0f} MiB",
            version.digest[:19],
        )
        for model in found
        for version in model.versions
    ]
    columns = ("id", "task", "source", "format", "parameters", "weights", "digest")
    table(columns, rows, empty="there are no models yet; a deployment brings its own")


def usage(as_json: Json = False) -> None:
    """Show requests and tokens so far."""
    with connected() as client:
        found = client.usage()
    if as_json:
        say_json(found)
        return
    rows = [
        (use.deployment, use.mode.value, use.requests, use.prompt_tokens, use.completion_tokens)
        for use in found
    ]
    columns = ("deployment", "mode", "requests", "prompt tokens", "completion tokens")
    table(columns, rows, empty="nothing was used yet")
