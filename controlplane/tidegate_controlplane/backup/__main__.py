"""`python -m tidegate_controlplane.backup save|restore FILE --data DIR`; the result is JSON.

Exit status: 0 done, 1 refused with `{"error": {"reason", "message"}}`, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from tidegate_controlplane.backup.contents import Summary
from tidegate_controlplane.backup.restore import restore
from tidegate_controlplane.backup.save import save
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.errors import ControlPlaneError
from tidegate_controlplane.settings import Settings


def main() -> int:
    arguments = _parser().parse_args()
    try:
        summary = asyncio.run(_run(arguments))
    except ControlPlaneError as error:
        _answer({"error": {"reason": type(error).__name__, "message": str(error)}})
        return 1
    file: Path = arguments.file
    _answer({"file": str(file), "bytes": file.stat().st_size, **summary.model_dump(mode="json")})
    return 0


async def _run(arguments: argparse.Namespace) -> Summary:
    settings = Settings(
        data_dir=arguments.data.absolute(),
        database=arguments.database,
        objects=arguments.objects,
    )
    file, clock = arguments.file.absolute(), SystemClock()
    if arguments.command == "save":
        return await save(settings, file, clock, with_s3=arguments.with_s3)
    return await restore(settings, file, clock)


def _answer(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tidegate_controlplane.backup", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("save", "restore"):
        command = commands.add_parser(name)
        command.add_argument("file", type=Path)
        command.add_argument("--data", type=Path, required=True, help="the platform's directory")
        command.add_argument("--database", help="postgresql://…, as the platform is told")
        command.add_argument("--objects", help="s3://bucket/prefix, as the platform is told")
    commands.choices["save"].add_argument(
        "--with-s3", action="store_true", help="also the objects in S3, not only their list"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
