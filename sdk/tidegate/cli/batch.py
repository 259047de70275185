"""`tidegate batch`: files, tables and S3 prefixes of requests, from beginning to end."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from tidegate.answers import BatchResult
from tidegate.cli.options import Json, Name, connected
from tidegate.cli.output import note, say, say_json, table
from tidegate.cli.progress import batch_bar, standing
from tidegate.errors import ConfigurationError
from tidegate.protocol.batch import TableFormat
from tidegate.protocol.work import BatchStatus

if TYPE_CHECKING:
    from tidegate.client import Batch, Client

app = typer.Typer(help="Answer files and tables of requests.", no_args_is_help=True)

BatchId = Annotated[str, typer.Argument(help="The batch's id.")]
Endpoint = Annotated[str, typer.Option(help="Of every line or row.")]
Window = Annotated[str, typer.Option(help="From 1h to 7d; what is not finished then expires.")]
Waiting = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the answers.")]
TimeoutS = Annotated[float | None, typer.Option("--timeout", help="Seconds to wait at most.")]
S3 = "s3://"


@app.command()
def run(
    name: Name,
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="JSONL of requests, a table, or s3://bucket/in/.")
    ],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Where the answers go.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Of a table: the prompts.")] = None,
    template: Annotated[
        Path | None, typer.Option(help="Of a table: a JSON request body with {{column}} in it.")
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="Of a table: names its rows.")] = None,
    format_: Annotated[
        TableFormat | None, typer.Option("--format", help="Of the objects under s3://….")
    ] = None,
    endpoint: Endpoint = "/v1/chat/completions",
    window: Window = "24h",
    resume: Annotated[
        str | None, typer.Option(help="A batch begun from the same table: only write its answers.")
    ] = None,
    wait: Waiting = True,
    timeout: TimeoutS = None,
    as_json: Json = False,
) -> None:
    """Answer every line of a file, or every row of a table (Parquet, CSV, JSONL)."""
    rows = {"column": column, "template": _template(template), "id_column": id_column}
    with connected() as client:
        if source.startswith(S3):
            tables = _tables(name, source, output, format_, rows)
            job = client.batches.transform(*tables, endpoint, completion_window=window)
            _end(job, wait, timeout, as_json=as_json)
        elif column or template:
            _run_table(
                client,
                name,
                source,
                output,
                as_json=as_json,
                wait=wait,
                timeout=timeout,
                endpoint=endpoint,
                completion_window=window,
                resume=resume,
                **rows,
            )
        else:
            _run_file(
                client,
                name,
                source,
                output,
                wait,
                timeout,
                as_json=as_json,
                endpoint=endpoint,
                completion_window=window,
            )


@app.command(name="list")
def list_(as_json: Json = False) -> None:
    """List the batches, newest first."""
    with connected() as client:
        found = [job.view for job in client.batches.list()]
    if as_json:
        say_json(found)
        return
    rows = [
        (
            view.id,
            view.status.value,
            view.model,
            view.request_counts.total,
            view.request_counts.completed,
            view.request_counts.failed,
        )
        for view in found
    ]
    columns = ("id", "status", "model", "lines", "answered", "failed")
    table(columns, rows, empty="there are no batches yet")


@app.command()
def show(batch_id: BatchId, as_json: Json = False) -> None:
    """Say where a batch stands, how fast it goes and what it took."""
    with connected() as client:
        view = client.batches.get(batch_id).view
    if as_json:
        say_json(view)
    else:
        say(standing(view))


@app.command()
def watch(batch_id: BatchId, timeout: TimeoutS = None, as_json: Json = False) -> None:
    """Follow a batch to its end: its rate, when it will be done, and whether in time."""
    with connected() as client:
        _end(client.batches.get(batch_id), True, timeout, as_json=as_json)  # noqa: FBT003


@app.command()
def cancel(batch_id: BatchId, as_json: Json = False) -> None:
    """End a batch; what was answered is kept."""
    with connected() as client:
        view = client.batches.cancel(batch_id).view
    if as_json:
        say_json(view)
    else:
        say(standing(view))


@app.command()
def retry(
    batch_id: BatchId, wait: Waiting = False, timeout: TimeoutS = None, as_json: Json = False
) -> None:
    """Run the lines again that an ended batch did not answer, as a new batch."""
    with connected() as client:
        _end(client.batches.retry(batch_id), wait, timeout, as_json=as_json)


def _run_file(
    client: Client,
    name: str,
    source: str,
    output: str | None,
    wait: bool,
    timeout_s: float | None,
    *,
    as_json: bool,
    **terms: Any,
) -> None:
    with ExitStack() as opened:
        sink = opened.enter_context(_writable(Path(output))) if output else None
        job = client.model(name).batch(source, **terms)
        if not as_json:
            note(f"batch {job.id} has begun; it goes on when this command is stopped")
        if wait:
            _follow(job, timeout_s, quiet=as_json)
            if sink is not None or not as_json:
                _collect(job, sink)
        if as_json:
            say_json(job.view)
        elif not wait:
            say(job.id)


def _run_table(
    client: Client,
    name: str,
    source: str,
    output: str | None,
    *,
    wait: bool,
    timeout: float | None,
    as_json: bool,
    **terms: Any,
) -> None:
    if output is None and wait:
        raise typer.BadParameter("say where the answers go with --output, or give --no-wait")
    job = client.model(name).batch_table(source, **terms)
    if not as_json:
        note(f"batch {job.id}; if this command is stopped, give it again with --resume {job.id}")
    if wait and output is not None:
        with batch_bar(quiet=as_json) as advance:
            job.write(output, timeout, advance)
    if as_json:
        say_json(job.view)
    else:
        say(standing(job.view) if wait else job.id)


def _tables(
    name: str, source: str, output: str | None, format_: TableFormat | None, rows: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    if output is None or format_ is None:
        raise typer.BadParameter("objects in S3 need --format, and --output s3://bucket/prefix/")
    given = {"uri": source, "format": format_.value, "model": name, **rows}
    if "model" in (rows["template"] or {}):
        del given["model"]
    return {key: value for key, value in given.items() if value is not None}, {"uri": output}


def _template(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{str(path)!r} is not JSON that can be read: {error}") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{str(path)!r} is not a JSON object")
    return found


def _end(job: Batch, wait: bool, timeout_s: float | None, *, as_json: bool) -> None:
    """Follow it when `wait`, then say where it stands."""
    if wait:
        _follow(job, timeout_s, quiet=as_json)
    if as_json:
        say_json(job.view)
    else:
        say(standing(job.view) if wait else job.id)


def _follow(job: Batch, timeout_s: float | None, *, quiet: bool) -> None:
    with batch_bar(quiet=quiet) as advance:
        job.wait(timeout_s, advance)
    if job.counts.failed and not quiet and job.status is BatchStatus.COMPLETED:
        note(f"warning: {job.counts.failed} of {job.counts.total} lines failed")


def _collect(job: Batch, sink: IO[str] | None) -> None:
    """Every line's answer or error, as JSON lines."""
    for lines in (job.results(), job.errors()):
        for line in lines:
            _put(line, sink)


def _put(line: BatchResult, sink: IO[str] | None) -> None:
    text = line.model_dump_json()
    if sink is None:
        say(text)
    else:
        sink.write(text + "\n")


def _writable(path: Path) -> IO[str]:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{str(path)!r} cannot be written: {error.strerror or error}"
        ) from error
