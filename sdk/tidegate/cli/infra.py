"""`infra`: a platform and endpoints on AWS from one file, for whoever never wants to see Pulumi."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tidegate.cli.options import Json
from tidegate.local.command import require_installed, run_beside

app = typer.Typer(no_args_is_help=True, help="A platform and endpoints on AWS, from one file.")
MODULE = "tidegate_infra"
NEEDED = (MODULE, "pulumi", "pulumi_aws", "pulumi_aws_native", "boto3")
File = Annotated[Path, typer.Option("--file", "-f", help="What is to be.", dir_okay=False)]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]
DEFAULT_FILE = Path("tidegate-infra.yaml")


@app.command()
def plan(file: File = DEFAULT_FILE, as_json: Json = False) -> None:
    """Show every resource, what runs at rest and costs, and what breaks a guard rail."""
    _run("plan", f"--file={file}", *_asked(as_json=as_json))


@app.command()
def up(file: File = DEFAULT_FILE, yes: Yes = False, as_json: Json = False) -> None:
    """Make everything that the file names, or change what is there."""
    _run("up", f"--file={file}", *_asked(yes=yes, as_json=as_json))


@app.command()
def destroy(file: File = DEFAULT_FILE, yes: Yes = False, as_json: Json = False) -> None:
    """Take away everything that the file's stack has made, data included."""
    _run("destroy", f"--file={file}", *_asked(yes=yes, as_json=as_json))


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(help="Where to.", file_okay=False)],
    file: File = DEFAULT_FILE,
    as_json: Json = False,
) -> None:
    """Write the equivalent Pulumi program, to go on with by hand on the same stack."""
    _run("export", f"--file={file}", *_asked(as_json=as_json), "--", str(directory))


def _asked(*, yes: bool = False, as_json: bool = False) -> list[str]:
    return [*(["--yes"] if yes else []), *(["--json"] if as_json else [])]


def _run(*arguments: str) -> None:
    require_installed("infrastructure package", NEEDED, "infra")
    if status := run_beside(MODULE, arguments):
        raise typer.Exit(status)
