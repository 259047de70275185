"""`keys create|new|ls|revoke`: who may do what."""

from __future__ import annotations

from typing import Annotated

import typer

from tidegate.cli.options import Json, connected
from tidegate.cli.output import note, say, say_json, table
from tidegate.protocol.api_keys import ADMIN_KEY_VARIABLE, new_key
from tidegate.protocol.resources import KeyRole

app = typer.Typer(help="API keys.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose or what for.")],
    role: Annotated[KeyRole, typer.Option(help="What it opens.")] = KeyRole.INFERENCE,
    rpm: Annotated[int, typer.Option(min=1, help="Requests a minute.")] = 60,
    tpm: Annotated[int, typer.Option(min=1, help="Tokens a minute.")] = 100_000,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="Neither limit.")] = False,
    as_json: Json = False,
) -> None:
    """Make a key; its secret is shown this once."""
    limits = (None, None) if unlimited else (rpm, tpm)
    with connected() as client:
        created = client.keys.create(name, role, *limits)
    if as_json:
        say_json(created)
    else:
        say(created.key)
        note(
            f"key {created.id} for '{created.name}' ({created.role.value}); keep it, it is not "
            "shown again"
        )


@app.command()
def new(as_json: Json = False) -> None:
    """Make an admin key for a platform that does not run yet; nothing is asked of any platform."""
    key = new_key()
    if as_json:
        say_json({"key": key})
        return
    say(key)
    note(f"give it to control planes in the environment variable {ADMIN_KEY_VARIABLE}")


@app.command()
def ls(as_json: Json = False) -> None:
    """List the keys, without their secrets."""
    with connected() as client:
        found = list(client.keys.list())
    if as_json:
        say_json(found)
        return
    rows = [
        (
            key.id,
            key.name,
            key.role.value,
            key.requests_per_minute or "none",
            key.tokens_per_minute or "none",
            "revoked" if key.revoked_at else "active",
        )
        for key in found
    ]
    columns = ("id", "name", "role", "requests/min", "tokens/min", "state")
    table(columns, rows, empty="there are no keys")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Its id, from 'keys ls'.")], as_json: Json = False
) -> None:
    """Take a key back: from now on it opens nothing."""
    with connected() as client:
        revoked = client.keys.revoke(key_id)
    if as_json:
        say_json(revoked)
    else:
        say(f"key {revoked.id} for '{revoked.name}' is revoked")
