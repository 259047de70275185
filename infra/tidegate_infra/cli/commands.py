"""The commands of `tidegate-infra`; `tidegate infra` passes its own to them.

Exit status: 0 done, 1 refused or failed (`error: …` on standard error), 2 misused.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidegate_infra.errors import InfraError, PulumiMissing, StackFailed

if TYPE_CHECKING:
    from tidegate_infra.cli.file import InfraFile
    from tidegate_infra.cli.output import Output
    from tidegate_infra.cli.stack import OwnStack

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Tidegate's infrastructure on AWS, and its Pulumi package for other tools.",
)
File = Annotated[Path, typer.Option("--file", "-f", help="What is to be.", dir_okay=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, errors included.")]
DEFAULT_FILE = Path("tidegate-infra.yaml")


@app.callback()
def commands() -> None:
    """One command for each thing that can be done or printed."""


@app.command()
def schema() -> None:
    """Print the schema from which `pulumi package gen-sdk` makes an SDK for another language."""
    with _refusals():
        from tidegate_infra.provider.schema import schema_text

        typer.echo(schema_text(), nl=False)


@app.command()
def plan(file: File = DEFAULT_FILE, as_json: Json = False) -> None:
    """Show every resource, what runs at rest and costs, and what breaks a guard rail."""
    with _refusals(as_json=as_json):
        from tidegate.offers import bundled_offers
        from tidegate_infra.cli.file import read
        from tidegate_infra.cli.output import Output, plan_facts
        from tidegate_infra.cli.plan import resources_of
        from tidegate_infra.cli.program import rails_of
        from tidegate_infra.graph.prices import instance_prices
        from tidegate_infra.graph.text import graph

        read_file, out = read(file), Output(as_json=as_json)
        resources = resources_of(read_file)
        prices = instance_prices(bundled_offers(), read_file.region)
        findings = rails_of(read_file).findings(resources)
        facts = plan_facts(resources, findings, prices)
        if not as_json:
            typer.echo(graph(resources, prices))
        if findings:
            out.end("\n".join(map(str, findings)), **facts)
            raise typer.Exit(1)
        out.tell("guard rails  hold")
        changes = _preview(read_file, file, out)
        out.end(f"changes      {changes}", changes=changes, **facts)


@app.command()
def up(file: File = DEFAULT_FILE, yes: Yes = False, as_json: Json = False) -> None:
    """Make everything that the file names, or change what is there."""
    with _refusals(as_json=as_json):
        from tidegate_infra.cli.output import Output
        from tidegate_infra.cli.program import Secrets

        stack, read_file = _own_stack(file)
        secrets, out = Secrets.of(read_file, os.environ), Output(as_json=as_json)
        _confirm(f"Change AWS until it is as {file} says (tidegate infra plan shows it)?", yes=yes)
        with _finishing_steps():
            changes, outputs = stack.up(secrets, out.tell)
        if not as_json:
            for name, value in outputs.items():
                typer.echo(f"{name}  {value}")
        out.end(f"changes      {changes}", stack=read_file.stack, changes=changes, outputs=outputs)


@app.command()
def destroy(file: File = DEFAULT_FILE, yes: Yes = False, as_json: Json = False) -> None:
    """Take away everything that the file's stack has made, data included."""
    with _refusals(as_json=as_json):
        from tidegate_infra.cli.output import Output

        stack, read_file = _own_stack(file)
        out = Output(as_json=as_json)
        _confirm(f"Delete everything of stack {read_file.stack}, with its data?", yes=yes)
        with _finishing_steps():
            there_was = stack.destroy(out.tell)
        said = "is gone" if there_was else "is not there; nothing is left to delete"
        out.end(f"stack {read_file.stack} {said}", stack=read_file.stack, there_was=there_was)


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(help="Where to.", file_okay=False)],
    file: File = DEFAULT_FILE,
    as_json: Json = False,
) -> None:
    """Write the equivalent Pulumi program, to go on with by hand on the same stack."""
    with _refusals(as_json=as_json):
        from tidegate_infra.cli.export import export as exported
        from tidegate_infra.cli.file import read
        from tidegate_infra.cli.output import Output

        read_file, out = read(file), Output(as_json=as_json)
        written = [str(path) for path in exported(read_file, file.parent, directory)]
        for path in written:
            out.tell(f"wrote {path}")
        if read_file.platform is not None:
            out.tell("its secrets, once, with the values of before:")
            out.tell("  pulumi config set --secret databasePassword")
            out.tell("  pulumi config set --secret pepper")
            out.tell("  pulumi config set --secret adminKey")
        out.end(written=written)


def main() -> None:
    """The entry point."""
    app()


def _own_stack(path: Path) -> tuple[OwnStack, InfraFile]:
    """Raises InfraError when something is missing that a change needs."""
    from tidegate_infra.cli.file import read
    from tidegate_infra.cli.stack import OwnStack, pulumi_command, require_credentials

    file = read(path)
    command = pulumi_command()
    require_credentials(file.region)
    return OwnStack(file, path.parent, command), file


def _confirm(question: str, *, yes: bool) -> None:
    if not yes and not sys.stdin.isatty():
        raise StackFailed("nobody is there to ask; look at `tidegate infra plan`, then say --yes")
    if not yes:
        typer.confirm(question, abort=True)


def _preview(file: InfraFile, path: Path, out: Output) -> str:
    """What would change, from Pulumi itself where it can be had."""
    from tidegate_infra.cli.program import Secrets
    from tidegate_infra.cli.stack import OwnStack, pulumi_command

    try:
        command = pulumi_command()
    except PulumiMissing as missing:
        return f"not looked for, this is the graph alone: {missing}"
    stack = OwnStack(file, path.parent, command)
    return stack.preview(Secrets.of(file, os.environ), out.tell)


@contextmanager
def _finishing_steps() -> Iterator[None]:
    """Ctrl-C reaches `pulumi` too, which notes how far it came; we wait until it has."""

    def said(*_: object) -> None:
        typer.echo("it stops after the steps in hand", err=True)

    before = signal.signal(signal.SIGINT, said)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _refusals(*, as_json: bool = False) -> Iterator[None]:
    """Expected errors without a traceback."""
    try:
        yield
    except InfraError as error:
        from tidegate_infra.cli.output import say_error

        say_error(error, as_json=as_json)
        sys.exit(1)
    except ModuleNotFoundError as missing:
        typer.echo(f"error: {missing.name} is missing: pip install 'tidegate[infra]'", err=True)
        sys.exit(1)
