"""`profile`: where the steps of a replica go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate.cli.options import Json, Name, connected
from tidegate.cli.output import note, say, say_json, table
from tidegate.errors import ConfigurationError
from tidegate.protocol.profile import MAX_PROFILE_S

if TYPE_CHECKING:
    from tidegate.protocol.profile import ProfileSummary


def register(app: typer.Typer) -> None:
    app.command()(profile)


def profile(
    name: Name,
    seconds: Annotated[
        float, typer.Option(help="How long to record.", min=0.1, max=MAX_PROFILE_S)
    ] = 10,
    output: Annotated[
        Path | None, typer.Option(help="The trace.  [default: NAME-profile.json.gz]")
    ] = None,
    replica: Annotated[str | None, typer.Option(help="Its id.  [default: the busiest]")] = None,
    as_json: Json = False,
) -> None:
    """Record where the steps of a replica go: a trace for Perfetto, and a summary."""
    path = output or Path(f"{name}-profile.json.gz")
    _check(path)
    with connected() as client:
        found = client.deployments.get(name).profile(seconds, replica)
    _write(path, found.trace_gzip)
    if as_json:
        say_json({"trace": str(path), "summary": found.summary.model_dump(mode="json")})
        return
    _say(found.summary)
    note(f"the trace is in {path}; open it in https://ui.perfetto.dev")


def _say(summary: ProfileSummary) -> None:
    say(
        f"{summary.replica_id}: {summary.steps} steps in {summary.seconds:.1f} s, "
        f"{summary.rows_per_step:.1f} sequences and {summary.tokens_per_step:.1f} tokens a step"
    )
    rows = [
        (each.phase, f"{each.share:.1%}", *map(_ms, (each.mean_s, each.p50_s, each.p99_s)))
        for each in summary.phases
    ]
    table(("phase", "share", "mean ms", "p50 ms", "p99 ms"), rows, empty="nothing was recorded")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3f}"


def _check(path: Path) -> None:
    """Before anything is recorded that would be lost."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        why = "it is a directory" if path.is_dir() else "the directory for it is not there"
        raise ConfigurationError(f"{str(path)!r} cannot be written: {why}")


def _write(path: Path, trace: bytes) -> None:
    try:
        path.write_bytes(trace)
    except OSError as error:
        raise ConfigurationError(
            f"{str(path)!r} cannot be written: {error.strerror or error}"
        ) from error
