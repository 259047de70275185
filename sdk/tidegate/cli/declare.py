"""`deploy`, `apply`, `plan` and `diff`: from a declaration to the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidegate.cli import spec_input
from tidegate.cli.options import Json, SpecFile, TimeoutS, Wait, connected
from tidegate.cli.output import note, say, say_json, table
from tidegate.cli.progress import wait_ready
from tidegate.errors import NotFound
from tidegate.spec import Change, DeploymentSpec, Mode, Precision, Task, diff

if TYPE_CHECKING:
    from tidegate.client import Client, Deployment
    from tidegate.protocol.resources import ConsideredOffer, PlannedOffer, PlanView

EXIT_DIFFERENT = 2
SHOWN_OFFERS = 8


def register(app: typer.Typer) -> None:
    app.command()(deploy)
    app.command("apply")(apply_)
    app.command()(plan)
    app.command("diff")(diff_)


def deploy(
    source: Annotated[
        str, typer.Argument(help="A directory, a .gguf file, s3://bucket/prefix or hf://org/name.")
    ],
    name: Annotated[str, typer.Option(help="What requests will put into `model`.")],
    mode: Annotated[Mode, typer.Option(help="How it is served.")] = Mode.SERVERLESS,
    task: Annotated[Task, typer.Option(help="What the model does.")] = Task.GENERATE,
    revision: Annotated[str | None, typer.Option(help="A commit, for hf:// sources.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="Of the weights.")] = None,
    context_tokens: Annotated[int | None, typer.Option(help="Prompt and output.")] = None,
    minimum: Annotated[int | None, typer.Option("--min", help="Replicas at least.")] = None,
    maximum: Annotated[int | None, typer.Option("--max", help="Replicas at most.")] = None,
    idle_timeout: Annotated[
        str | None, typer.Option(help="Seconds without work before scaling to zero, or 'auto'.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value; repeatable.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any field, such as runtime.max_sequences=8; repeatable."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace/--no-replace", help="Whether the name may be taken.")
    ] = True,
    wait: Wait = False,
    timeout: TimeoutS = 600.0,
    as_json: Json = False,
) -> None:
    """Declare a model and how it is served. The same again changes nothing."""
    fields: dict[str, Any] = {
        "name": name,
        "model": {"source": source, "task": task, "revision": revision},
        "mode": mode,
        "runtime": {"precision": precision, "context_tokens": context_tokens},
        "scaling": {
            "min_replicas": minimum,
            "max_replicas": maximum,
            "idle_timeout_s": idle_timeout,
        },
        "labels": spec_input.labels(label or []),
    }
    spec = spec_input.assembled(fields, settings or [])
    with connected() as client:
        deployment = client.apply(spec, replace=replace)
        _report([_settled(deployment, wait, timeout, as_json)], as_json=as_json)


def apply_(
    file: SpecFile, wait: Wait = False, timeout: TimeoutS = 600.0, as_json: Json = False
) -> None:
    """Make the server's declarations those of a file. Nothing is sent unless all are sound.

    Relative paths in a file are read from the file's folder.
    """
    specs = spec_input.read(file)
    with connected() as client:
        applied = [client.apply(spec) for spec in specs]
        _report([_settled(each, wait, timeout, as_json) for each in applied], as_json=as_json)


def plan(file: SpecFile, as_json: Json = False) -> None:
    """Show what `apply` would change and what would run; nothing is touched."""
    specs = spec_input.read(file)
    with connected() as client:
        plans = [client.plan(spec) for spec in specs]
    if as_json:
        say_json(plans)
        return
    for view in plans:
        _show_plan(view)


def diff_(file: SpecFile, as_json: Json = False) -> None:
    """Show what differs between a file and the server.

    Exit status: 0 when nothing does, 2 when something does, 1 for an error.
    """
    specs = spec_input.read(file)
    with connected() as client:
        found = {spec.name: diff(_declared(client, spec.name), spec) for spec in specs}
    if as_json:
        say_json({name: [vars(change) for change in changes] for name, changes in found.items()})
    else:
        for name, changes in found.items():
            _show_changes(name, changes)
    if any(found.values()):
        raise typer.Exit(EXIT_DIFFERENT)


def _settled(deployment: Deployment, wait: bool, timeout_s: float, quiet: bool) -> Deployment:
    return wait_ready(deployment, timeout_s, quiet=quiet) if wait else deployment


def _report(applied: list[Deployment], *, as_json: bool) -> None:
    if as_json:
        views = [deployment.view for deployment in applied]
        say_json(views[0] if len(views) == 1 else views)
        return
    for deployment in applied:
        view = deployment.view
        say(f"{view.name} is {view.phase.value} (generation {view.generation})")
    note(f"  use it:  {_door(applied[0].spec)}")


def _door(spec: DeploymentSpec) -> str:
    """A first request that such a deployment answers."""
    if spec.mode is Mode.BATCH:
        return f"tidegate batch run {spec.name} requests.jsonl"
    if spec.model.task is not Task.GENERATE:
        route = "/v1/embeddings" if spec.model.task is Task.EMBED else "/v1/rerank"
        return f"POST {route} with the model {spec.name!r}"
    ask = "invoke" if spec.mode is Mode.ASYNC else "chat"
    return f"tidegate {ask} {spec.name} 'hello'"


def _declared(client: Client, name: str) -> DeploymentSpec | None:
    try:
        return client.deployments.get(name).spec
    except NotFound:
        return None


def _show_changes(name: str, changes: list[Change]) -> None:
    if not changes:
        say(f"{name}: no difference")
        return
    say(f"{name}:")
    rows = [(change.field, _value(change.before), _value(change.after)) for change in changes]
    table(("field", "on the server", "in the file"), rows, empty="")


def _show_plan(view: PlanView) -> None:
    say(f"{view.name}: {view.action}")
    changes = [(c.field, _value(c.before), _value(c.after)) for c in view.changes]
    if changes:
        table(("field", "before", "after"), changes, empty="")
    facts = {**view.model.model_dump(), **view.plan.model_dump(exclude={"offer"})}
    rows = [(field, _value(value)) for field, value in facts.items() if value is not None]
    table(("planned", "value"), rows, empty="")
    if view.plan.offer is not None:
        _show_offer(view.plan.offer, view.offers)
    for warning in view.warnings:
        note(f"warning: {warning}")


def _show_offer(offer: PlannedOffer, considered: list[ConsideredOffer]) -> None:
    rows = [
        (field, _value(value)) for field, value in offer.model_dump().items() if value is not None
    ]
    table(("rented", "value"), rows, empty="")
    looked_at = [(_machine(each), each.usd_per_hour, _verdict(each)) for each in considered]
    table(("offer", "usd/h", "for this model"), looked_at[:SHOWN_OFFERS], empty="")
    if len(looked_at) > SHOWN_OFFERS:
        note(f"{len(looked_at) - SHOWN_OFFERS} more offers were looked at; --json shows all")


def _machine(offer: ConsideredOffer) -> str:
    return (
        f"{offer.instance_type} ({offer.gpus} x {offer.gpu})" if offer.gpu else offer.instance_type
    )


def _verdict(offer: ConsideredOffer) -> str:
    if offer.usd_per_month is None:
        return offer.reason or ""
    return f"fits: {offer.usd_per_month:,.2f} USD a month while its replicas are up"


def _value(value: Any) -> str:
    return "–" if value is None else str(value)
