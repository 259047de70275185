"""`encryption add-key`: what bodies and results are sealed with at rest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tidegate.cli.options import Json
from tidegate.cli.output import note, say, say_json
from tidegate.local.key_file import add_key

app = typer.Typer(help="Encryption at rest.", no_args_is_help=True)


@app.command("add-key")
def add(
    file: Annotated[Path, typer.Argument(help="The key file; it is made if there is none.")],
    as_json: Json = False,
) -> None:
    """Add a new key to a key file; from the next start on it is the one that seals."""
    number = add_key(file)
    if as_json:
        say_json({"file": str(file), "keys": number})
        return
    say(f"{file} holds {number} {'key' if number == 1 else 'keys'}; the last one is new")
    note("keep a copy elsewhere: what was sealed is lost with its key")
