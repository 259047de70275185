"""`ls`, `status`, `logs`, `events`, `decisions`: what runs, what happened and why."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidegate.cli.options import Json, Name, connected
from tidegate.cli.output import console, say, say_json, table
from tidegate.spec import Mode
from tidegate.telemetry.logs import readable

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tidegate.client import Deployment
    from tidegate.protocol.resources import DeploymentView, ReplicaView

WATCH_INTERVAL_S = 1.0
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")]


def register(app: typer.Typer) -> None:
    for command in (ls, status, logs, events, decisions):
        app.command()(command)


def ls(
    mode: Annotated[Mode | None, typer.Option(help="Only those of this mode.")] = None,
    label: Annotated[str | None, typer.Option(help="Only those with this key=value.")] = None,
    as_json: Json = False,
) -> None:
    """List the deployments."""
    with connected() as client:
        views = [deployment.view for deployment in client.deployments.list(mode, label)]
    if as_json:
        say_json(views)
        return
    table(
        ("name", "mode", "phase", "replicas", "model", "age"),
        [
            (
                view.name,
                view.mode.value,
                view.phase.value,
                _replicas(view),
                view.spec.model.source,
                _age(view.created_at),
            )
            for view in views
        ],
        empty="there are no deployments; 'tidegate deploy SOURCE --name NAME' makes one",
    )


def status(
    name: Name,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Show where a deployment stands, and its replicas."""
    with connected() as client:
        deployment = client.deployments.get(name)
        if watch:
            _watch(deployment, as_json=as_json)
        elif as_json:
            say_json(_facts(deployment))
        else:
            console().print(_picture(deployment))


def logs(
    name: Name,
    follow: Follow = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last lines.")] = None,
    as_json: Json = False,
) -> None:
    """Show the log lines of a deployment's replicas."""
    with connected() as client:
        deployment = client.deployments.get(name)
        lines: Any = deployment.logs(follow=follow)
        if tail is not None and not follow:
            lines = list(lines)[-tail:] if tail else []
        for line in lines:
            if as_json:
                say_json(line, one_line=True)
            else:
                say(f"{line.replica} | {readable(line.text)}")


def events(name: Name, follow: Follow = False, as_json: Json = False) -> None:
    """Show what happened to a deployment, oldest first."""
    with connected() as client:
        for event in client.deployments.get(name).events(follow=follow):
            if as_json:
                say_json(event, one_line=True)
            else:
                what = f"{event.severity.value:<7}  {event.reason:<20}  {event.message}"
                say(f"{_when(event.time)}  {what}")


def decisions(name: Name, as_json: Json = False) -> None:
    """Show how many replicas the autoscaler wanted and why, oldest first."""
    with connected() as client:
        for decision in client.deployments.get(name).decisions():
            if as_json:
                say_json(decision, one_line=True)
            else:
                say(f"{_when(decision.time)}  {decision.term:<10}  {decision.sentence}")


def _when(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _watch(deployment: Deployment, *, as_json: bool) -> None:
    screen = console()
    if as_json or not screen.is_terminal:
        _watch_lines(deployment, as_json=as_json)
    from rich.live import Live

    with Live(_picture(deployment), console=screen, auto_refresh=False) as live:
        while True:
            time.sleep(WATCH_INTERVAL_S)
            live.update(_picture(deployment.refresh()), refresh=True)


def _watch_lines(deployment: Deployment, *, as_json: bool) -> None:
    """One line for each change, for ever."""
    seen: DeploymentView | None = None
    while True:
        if (view := deployment.refresh().view) != seen:
            seen = view
            if as_json:
                say_json(_facts(deployment), one_line=True)
            else:
                say(f"{view.phase.value}  {_replicas(view)}  {view.message}".rstrip())
        time.sleep(WATCH_INTERVAL_S)


def _facts(deployment: Deployment) -> dict[str, Any]:
    replicas = [replica.model_dump(mode="json") for replica in deployment.replicas()]
    return {**deployment.view.model_dump(mode="json"), "replica_list": replicas}


def _picture(deployment: Deployment) -> RenderableType:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    view = deployment.view
    facts = Table(box=None, show_header=False, pad_edge=False)
    rows = {
        "name": view.name,
        "mode": view.mode.value,
        "phase": view.phase.value,
        "message": view.message,
        "model": view.spec.model.source,
        "generation": f"{view.observed_generation} of {view.generation}",
        "replicas": _replicas(view),
    }
    for key, value in rows.items():
        facts.add_row(f"[bold]{key}[/]", escape(value))
    for condition in view.conditions:
        state = "yes" if condition.status else f"no ({condition.reason}: {condition.message})"
        facts.add_row(f"[bold]{escape(condition.type)}[/]", escape(state))
    return Group(facts, Text(""), _replica_table(deployment.replicas()))


def _replica_table(replicas: list[ReplicaView]) -> RenderableType:
    from rich.markup import escape
    from rich.table import Table

    columns = ("replica", "phase", "where", "in flight", "cold start", "age", "message")
    rows = Table(*(column.upper() for column in columns), box=None, pad_edge=False)
    for replica in replicas:
        cold = "" if replica.cold_start_s is None else f"{replica.cold_start_s:.2f} s"
        cells = (
            replica.id,
            replica.phase.value,
            _where(replica),
            replica.in_flight,
            cold,
            _age(replica.created_at),
            replica.message or "",
        )
        rows.add_row(*(escape(str(cell)) for cell in cells))
    return rows


def _where(replica: ReplicaView) -> str:
    process = f"process {replica.pid}, port {replica.port}" if replica.port else ""
    return replica.where or process


def _replicas(view: DeploymentView) -> str:
    counts = view.replicas
    parts = [f"{counts.ready}/{counts.desired} ready"]
    parts += [f"{counts.starting} starting"] if counts.starting else []
    parts += [f"{counts.draining} draining"] if counts.draining else []
    return ", ".join(parts)


def _age(since: datetime) -> str:
    seconds = max(0, int((datetime.now(UTC) - since).total_seconds()))
    for unit_s, letter in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "m")):
        if seconds >= unit_s:
            return f"{seconds // unit_s}{letter}"
    return f"{seconds}s"
