"""`encryption add-key|status|rotate`: what bodies and results are sealed with at rest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tidegate.cli.options import Json, connected
from tidegate.cli.output import note, say, say_json, table
from tidegate.errors import LocalError
from tidegate.local.key_file import add_key
from tidegate.protocol.resources import EncryptionView

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


@app.command()
def status(as_json: Json = False) -> None:
    """Count what is sealed, by key, or say how far a rotation is that is under way."""
    with connected() as client:
        found = client.encryption.get()
        if found.newest is not None and not found.running:
            found = client.encryption.count(None if as_json else _progress)
    _show(found, as_json=as_json)


@app.command()
def rotate(as_json: Json = False) -> None:
    """Put everything under the newest key; run it again if it was interrupted."""
    with connected() as client:
        found = client.encryption.rotate(None if as_json else _progress)
    _show(found, as_json=as_json)
    if found.failed:
        raise LocalError(f"{found.failed} could not be put under the newest key; see above")


def _progress(view: EncryptionView) -> None:
    if view.running:
        note(f"{view.seen} looked at, {view.rewrapped} put under the newest key")


def _show(view: EncryptionView, *, as_json: bool) -> None:
    if as_json:
        say_json(view)
        return
    if view.newest is None:
        say("encryption is off: bodies and results are stored as they are")
        return
    if view.running:
        say(f"{view.seen} looked at so far, {view.rewrapped} put under the newest key")
        return
    unused = [key for key in view.keys if key not in {use.key for use in view.uses}]
    rows = [(use.key or "none (plain)", use.objects, use.rows) for use in view.uses]
    rows += [(key, 0, 0) for key in unused]
    table(("key", "objects", "rows"), rows, empty="nothing is sealed")
    say(f"the newest key, {view.newest}, seals what is stored from now on")
    for key in unused:
        if key != view.newest and not view.failed:
            say(f"nothing is sealed under {key}: it may be taken away")
    for error in view.errors:
        note(error)
