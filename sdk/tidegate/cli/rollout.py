"""`rollout status|promote|abort`, and `rollback`: from one revision to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.options import Json, Name, TimeoutS, Wait, connected
from tidegate.cli.output import say, say_json
from tidegate.cli.progress import wait_ready
from tidegate.protocol.resources import RolloutPhase

if TYPE_CHECKING:
    from tidegate.client import Deployment
    from tidegate.protocol.resources import OutcomeView, RolloutView

app = typer.Typer(help="How a new revision takes over.", no_args_is_help=True)

Watch = Annotated[
    bool, typer.Option("--watch", "-w", help="Until it ends; status 1 when it is rolled back.")
]


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="rollout")
    root.command()(rollback)


@app.command()
def status(name: Name, watch: Watch = False, as_json: Json = False) -> None:
    """Show the present rollout of a deployment, or the last one."""
    with connected() as client:
        deployment = client.deployments.get(name)
        _shown(deployment, deployment.rollout(), watch=watch, as_json=as_json)


@app.command()
def promote(name: Name, watch: Watch = False, as_json: Json = False) -> None:
    """Let the new revision take all now."""
    with connected() as client:
        deployment = client.deployments.get(name)
        _shown(deployment, deployment.promote(), watch=watch, as_json=as_json)


@app.command()
def abort(name: Name, watch: Watch = False, as_json: Json = False) -> None:
    """Send the traffic back to the former revision."""
    with connected() as client:
        deployment = client.deployments.get(name)
        _shown(deployment, deployment.abort(), watch=watch, as_json=as_json, asked_back=True)


def rollback(
    name: Name,
    to: Annotated[
        int | None, typer.Option(min=1, help="The revision's number; the former one if absent.")
    ] = None,
    wait: Wait = False,
    timeout: TimeoutS = 600.0,
    as_json: Json = False,
) -> None:
    """Declare a former revision again; it takes over at once."""
    with connected() as client:
        deployment = client.deployments.get(name).rollback(to)
        if wait:
            wait_ready(deployment, timeout, quiet=as_json)
    if as_json:
        say_json(deployment.view)
    else:
        say(f"{name} goes back (generation {deployment.view.generation})")


def _shown(
    deployment: Deployment,
    view: RolloutView,
    *,
    watch: bool,
    as_json: bool,
    asked_back: bool = False,
) -> None:
    if not watch:
        _say(view, as_json=as_json)
        return
    ended = deployment.wait_rollout(None, lambda seen: _say(seen, as_json=as_json, one_line=True))
    if ended.phase is RolloutPhase.ROLLED_BACK and not asked_back:
        raise typer.Exit(1)


def _say(view: RolloutView, *, as_json: bool, one_line: bool = False) -> None:
    if as_json:
        say_json(view, one_line=one_line)
        return
    step = f" step {min(view.step + 1, view.steps)}/{view.steps}" if view.steps else ""
    say(
        f"{view.deployment}: {view.strategy.value} from revision {view.from_revision} to "
        f"{view.to_revision} is {view.phase.value}{step}, {view.weight:g} % on the new one: "
        f"{view.message}"
    )
    if view.comparison and not one_line:
        say(f"  former: {_outcomes(view.comparison.stable)}")
        say(f"  new:    {_outcomes(view.comparison.new)}")
        likeness = view.comparison.likeness
        if likeness and likeness.compared:
            agreement = "–" if likeness.agreement is None else f"{likeness.agreement:.1%}"
            say(f"  copies: {likeness.compared} compared, greedy agreement {agreement}")


def _outcomes(seen: OutcomeView) -> str:
    parts = [f"{seen.answered} answered", f"{seen.failed} failed"]
    if seen.first_token_s is not None:
        parts.append(f"first token {seen.first_token_s * 1000:.0f} ms")
    if seen.per_token_s is not None:
        parts.append(f"{seen.per_token_s * 1000:.1f} ms a token")
    return ", ".join(parts)
