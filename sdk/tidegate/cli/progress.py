"""Waiting, shown: a spinner or bar on a terminal, a line per change elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from tidegate.cli.output import console, note

if TYPE_CHECKING:
    from tidegate.client import Deployment
    from tidegate.protocol.batch import BatchProgress
    from tidegate.protocol.compress import CompressProgress
    from tidegate.protocol.resources import DeploymentView
    from tidegate.protocol.work import BatchObject


def wait_ready(deployment: Deployment, timeout_s: float, *, quiet: bool) -> Deployment:
    """Wait until it serves, saying where it stands; with `quiet`, only wait."""
    if quiet:
        return deployment.wait_ready(timeout_s)
    with _status(f"{deployment.name}: {deployment.phase.value}") as show:
        return deployment.wait_ready(timeout_s, lambda view: show(_standing(view)))


@contextmanager
def batch_bar(*, quiet: bool) -> Iterator[Callable[[BatchObject], None]]:
    """A bar over a batch's lines; with `quiet`, nothing."""
    screen = console(stderr=True)
    if quiet:
        yield lambda _: None
    elif screen.is_terminal:
        from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

        columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=screen) as progress:
            task = progress.add_task("validating", total=None)

            def advance(batch: BatchObject) -> None:
                counts = batch.request_counts
                progress.update(
                    task,
                    description=_short(batch),
                    total=counts.total or None,
                    completed=counts.completed + counts.failed,
                )

            yield advance
    else:
        yield lambda batch: note(standing(batch))


@contextmanager
def compress_bar(
    *, quiet: bool
) -> Iterator[tuple[Callable[[CompressProgress], None], Callable[[str], None]]]:
    """A bar over the steps of each stage, and what says a line above it; with `quiet`, nothing."""
    screen = console(stderr=True)
    if quiet:
        yield lambda _: None, lambda _: None
    elif screen.is_terminal:
        from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

        columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=screen) as progress:
            task = progress.add_task("starting", total=None)

            def advance(step: CompressProgress) -> None:
                progress.update(task, description=step.stage, total=step.total, completed=step.done)

            yield advance, lambda line: progress.console.print(line, markup=False)
    else:
        yield lambda step: note(f"{step.stage}: {step.done} of {step.total}"), note


def _short(batch: BatchObject) -> str:
    pace = _pace(batch.progress, ended=batch.status.is_final) if batch.progress else []
    return "; ".join([batch.status.value, *pace])


@contextmanager
def held(name: str) -> Iterator[None]:
    """Until the first word: a model at zero wakes now. Shown on a terminal only."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield
        return
    with screen.status(f"{name}: waiting for the first word"):
        yield


@contextmanager
def _status(first: str) -> Iterator[Callable[[str], None]]:
    screen = console(stderr=True)
    if screen.is_terminal:
        with screen.status(first) as status:
            yield status.update
    else:
        yield note


def _standing(view: DeploymentView) -> str:
    detail = f": {view.message}" if view.message else ""
    return f"{view.name} is {view.phase.value}{detail}"


def standing(batch: BatchObject) -> str:
    """Where a batch stands, in one line: lines, rate, when it will be done, what it took."""
    counts = batch.request_counts
    done = counts.completed + counts.failed
    said = [f"{batch.id} is {batch.status.value}: {done} of {counts.total}, {counts.failed} failed"]
    if batch.progress is not None:
        said += _pace(batch.progress, ended=batch.status.is_final)
    if batch.usage.total_tokens:
        said.append(f"{batch.usage.input_tokens} + {batch.usage.output_tokens} tokens")
    return "; ".join(said)


def _pace(progress: BatchProgress, *, ended: bool) -> list[str]:
    said = [f"{progress.lines_per_s:.3g} lines/s, {progress.tokens_per_s:.4g} tokens/s"]
    if progress.completes_at is not None and not ended:
        when = datetime.fromtimestamp(progress.completes_at).astimezone().strftime("%F %H:%M:%S")
        late = "" if progress.in_time else ", after its window"
        said.append(f"done about {when}{late}")
    cost = "" if progress.cost_usd is None else f" ({progress.cost_usd:.2f} USD)"
    said.append(f"{progress.replica_s:.1f} replica-seconds{cost}")
    return said
