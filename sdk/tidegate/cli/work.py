"""`work list|show|result|cancel|redrive|watch`: requests that were handed in."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from tidegate.cli.options import Json, connected
from tidegate.cli.output import note, say, say_json, table, write
from tidegate.errors import ConfigurationError, InvocationFailed
from tidegate.protocol.work import Invocation, InvocationEvent, InvocationState

if TYPE_CHECKING:
    from tidegate.client import Stream

app = typer.Typer(help="Invocations: requests that were handed in.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The invocation's id, as 'inv_…'.")]
Model = Annotated[str | None, typer.Option(help="Only those of this deployment.")]


@app.command("list")
def list_(
    status: Annotated[InvocationState | None, typer.Option(help="Only those in it.")] = None,
    model: Model = None,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 20,
    as_json: Json = False,
) -> None:
    """List invocations, the newest first."""
    with connected() as client:
        found = [one.view for one in islice(client.invocations.list(status, model), limit)]
    if as_json:
        say_json(found)
        return
    rows = [
        (
            one.id,
            one.model,
            one.status.value,
            f"{one.attempt}/{one.max_attempts}",
            _moment(one.created_at),
            one.error.message if one.error else None,
        )
        for one in found
    ]
    table(("id", "model", "state", "attempt", "since", "error"), rows, empty="there are none")


@app.command()
def show(invocation_id: Id, as_json: Json = False) -> None:
    """Show an invocation, and what each of its attempts ended with."""
    with connected() as client:
        view = client.invocations.get(invocation_id).view
    if as_json:
        say_json(view)
        return
    say(_standing(view))
    rows = [
        (
            each.attempt,
            _moment(each.started_at),
            _moment(each.ended_at),
            each.replica_id,
            f"{each.error.code}: {each.error.message}" if each.error else "answered",
        )
        for each in view.attempts
    ]
    columns = ("attempt", "began", "ended", "replica", "outcome")
    table(columns, rows, empty="no attempt has ended yet")


@app.command()
def result(
    invocation_id: Id,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file.")] = None,
    as_json: Json = False,
) -> None:
    """Write the model's answer as it is, in JSON, to standard output or a file."""
    del as_json  # it is JSON in any case; the option decides how errors are said
    with connected() as client:
        pieces = client.invocations.get(invocation_id).content()
        if output is None:
            _copy(pieces, sys.stdout.buffer)
            return
        with _writable(output) as file:
            _copy(pieces, file)


@app.command()
def cancel(invocation_id: Id, as_json: Json = False) -> None:
    """End it without a result, wherever it is; a finished one stays as it is."""
    with connected() as client:
        view = client.invocations.cancel(invocation_id).view
    _say(view, as_json=as_json)


@app.command()
def redrive(
    invocation_id: Annotated[
        str | None, typer.Argument(help="Its id. Absent: all of --status.")
    ] = None,
    status: Annotated[
        InvocationState | None, typer.Option(help="Redrive all that are dead, or failed.")
    ] = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Run again what failed or is dead."""
    if (invocation_id is None) == (status is None):
        raise typer.BadParameter("give either an id or --status dead|failed")
    with connected() as client:
        if invocation_id is not None:
            _say(client.invocations.get(invocation_id).redrive().view, as_json=as_json)
            return
        number = client.invocations.redrive(str(status), model)
    if as_json:
        say_json({"redriven": number})
    else:
        say(f"{number} invocations are queued again")


@app.command()
def watch(invocation_id: Id, as_json: Json = False) -> None:
    """Read along until it ends; status 1 when it has no result."""
    last: Invocation | None = None
    with connected() as client, client.invocations.get(invocation_id).events() as events:
        for event in events:
            last = event.invocation or last
            if as_json:
                say_json(event.model_dump(mode="json", exclude_none=True), one_line=True)
            else:
                _show(event)
    if not as_json:
        write("\n")
    if last is not None and last.status is not InvocationState.SUCCEEDED:
        raise InvocationFailed(last)


def _show(event: InvocationEvent) -> None:
    """Text goes to standard output, all else beside it."""
    match event.type:
        case "state" if event.invocation is not None:
            note(_standing(event.invocation))
        case "text" if not event.index:
            write(event.text or "")
        case "text_begins" if event.attempt and event.attempt > 1:
            note(f"attempt {event.attempt}: the text begins anew")
        case "progress" if event.items:
            note(f"{event.items_done} of {event.items} items")


def _say(view: Invocation, *, as_json: bool) -> None:
    if as_json:
        say_json(view)
    else:
        say(_standing(view))


def _standing(view: Invocation) -> str:
    why = f": {view.error.message}" if view.error else ""
    return f"{view.id} is {view.status.value}{why}"


def _copy(pieces: Stream[bytes], sink: BinaryIO) -> None:
    for piece in pieces:
        sink.write(piece)
    sink.flush()


def _writable(path: Path) -> BinaryIO:
    try:
        return path.open("wb")
    except OSError as error:
        raise ConfigurationError(
            f"{str(path)!r} cannot be written: {error.strerror or error}"
        ) from error


def _moment(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
