"""`backup` and `restore`: one archive of everything that a platform must not lose."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from tidegate.cli.options import Data, Json
from tidegate.cli.output import note, say, say_json
from tidegate.local.backup import run_backup_command
from tidegate.local.home import Home, default_data

Database = Annotated[
    str | None, typer.Option(help="postgresql://user@host/name, as the platform was started with.")
]
Objects = Annotated[
    str | None, typer.Option(help="s3://bucket/prefix, as the platform was started with.")
]


def register(app: typer.Typer) -> None:
    app.command()(backup)
    app.command()(restore)


def backup(
    file: Annotated[Path, typer.Argument(help="The archive to write; it must not exist.")],
    data: Data = None,
    database: Database = None,
    objects: Objects = None,
    with_s3: Annotated[
        bool, typer.Option("--with-s3", help="Copy objects out of S3 too; else they are listed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write rows, payloads and secrets into one archive, while the platform runs or not."""
    answer = run_backup_command(
        "backup",
        "save",
        str(file),
        *_place(data, database, objects),
        *(("--with-s3",) if with_s3 else ()),
    )
    if as_json:
        say_json(answer)
        return
    say(f"{answer['file']}: {_told(answer)}")
    note("the archive holds the platform's secrets and everything that was sent to it: keep it so")
    if not answer["objects"]["included"]:
        note(f"objects stay in {answer['objects']['place']}: keep them as long as this archive")


def restore(
    file: Annotated[Path, typer.Argument(help="An archive that `tidegate backup` wrote.")],
    data: Data = None,
    database: Database = None,
    objects: Objects = None,
    as_json: Json = False,
) -> None:
    """Fill an empty data directory from an archive; then start the platform with `up`."""
    place = _place(data, database, objects)
    answer = run_backup_command("restore", "restore", str(file), *place)
    if as_json:
        say_json(answer)
    else:
        say(f"restored {_told(answer)}, as they were at {answer['taken_at']}")


def _place(data: Path | None, database: str | None, objects: str | None) -> list[str]:
    home = Home.at(data or default_data(os.environ))
    return [
        *("--data", str(home.path)),
        *(("--database", database) if database else ()),
        *(("--objects", objects) if objects else ()),
    ]


def _told(answer: dict[str, Any]) -> str:
    rows, objects = sum(answer["rows"].values()), answer["objects"]
    told = f"{rows} rows and {objects['named']} objects"
    return f"{told}, {objects['gone']} of which were deleted meanwhile" if objects["gone"] else told
