"""`python -m tidegate_controlplane.provision.aws --data DIR --config FILE`: stacks without owner.

Lists the stacks of this installation whose deployment is not in its database, as after a restore
of an older backup; with `--destroy` they are destroyed. The control plane may run meanwhile.

Exit status: 0 none is left, 1 some are, 2 it could not be found out.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate_controlplane.errors import StartError
from tidegate_controlplane.provision.aws.failures import AwsFailed
from tidegate_controlplane.provision.aws.names import orphans
from tidegate_controlplane.provision.aws.opening import parts, pulumi_command, session_of
from tidegate_controlplane.provision.aws.sentences import News
from tidegate_controlplane.provision.aws.stacks import Stacks
from tidegate_controlplane.provision.base import StartFailed
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.settings_file import read_settings
from tidegate_controlplane.store.deployments import all_living
from tidegate_controlplane.store.open import open_database

if TYPE_CHECKING:
    from pulumi.automation import PulumiCommand


def main(
    arguments: Sequence[str] | None = None, command: Callable[[], PulumiCommand] = pulumi_command
) -> int:
    asked = _parser().parse_args(arguments)
    try:
        settings = read_settings(asked.config, {"data_dir": asked.data.absolute()})
        return _run(settings, command, destroy=asked.destroy)
    except (StartError, StartFailed, AwsFailed) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2


def _run(settings: Settings, command: Callable[[], PulumiCommand], *, destroy: bool) -> int:
    if settings.aws is None:
        raise StartError("there is no `aws` in the settings; name the file that has it by --config")
    session, directory = session_of(settings.aws), settings.data_dir / "aws"
    _, stacks = parts(settings.aws, directory, command(), session)
    found = orphans(settings.aws, stacks.names(), asyncio.run(_living(settings)))
    for name in found:
        print(f"stack {name} belongs to no deployment")  # noqa: T201
    if not destroy:
        return 1 if found else 0
    _destroy(stacks, found)
    return 0


def _destroy(stacks: Stacks, names: Sequence[str]) -> None:
    def say(news: News) -> None:
        print(news[1])  # noqa: T201

    for name in names:
        stacks.destroy(name, say)


async def _living(settings: Settings) -> list[str]:
    """The ids of the deployments that are there, also of those that are being deleted."""
    if settings.database is None and not settings.database_path.exists():
        raise StartError(f"--data {str(settings.data_dir)!r}: there is no database in it")
    database = open_database(settings.database, settings.database_path)
    try:
        return await database.read(lambda session: [row.id for row in all_living(session)])
    finally:
        database.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tidegate_controlplane.provision.aws", description=__doc__
    )
    parser.add_argument("--data", type=Path, required=True, help="the platform's directory")
    parser.add_argument("--config", type=Path, required=True, help="its file of settings")
    parser.add_argument("--destroy", action="store_true", help="the stacks that are found")
    return parser


if __name__ == "__main__":
    sys.exit(main())
