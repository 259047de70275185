"""The command `tidegate-infra`: what is made from this package for others."""

from __future__ import annotations

import typer

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Tidegate's Pulumi package, for other tools."
)


@app.callback()
def commands() -> None:
    """One command for each thing that can be printed."""


@app.command()
def schema() -> None:
    """Print the schema from which `pulumi package gen-sdk` makes an SDK for another language."""
    try:
        from tidegate_infra.provider.schema import schema_text
    except ModuleNotFoundError as missing:
        typer.echo(f"error: {missing.name} is missing: pip install 'tidegate[infra]'", err=True)
        raise typer.Exit(1) from None
    typer.echo(schema_text(), nl=False)


def main() -> None:
    """The entry point."""
    app()
