"""Opens AWS as a place, or says what it lacks and how to get it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import BotoCoreError

from tidegate_controlplane.clock import Clock
from tidegate_controlplane.provision.aws.container_logs import ContainerLogs
from tidegate_controlplane.provision.aws.copies import Copies
from tidegate_controlplane.provision.aws.keeper import Pace, Tools
from tidegate_controlplane.provision.aws.place import AwsPlace
from tidegate_controlplane.provision.aws.stacks import Stacks
from tidegate_controlplane.provision.base import StartFailed
from tidegate_controlplane.settings import AwsSettings

if TYPE_CHECKING:
    from pulumi.automation import PulumiCommand


def pulumi_command() -> PulumiCommand:
    """The CLI on the PATH. Raises StartFailed when it, or the extra, is missing. Blocks."""
    try:
        import pulumi_aws  # noqa: F401
        import pulumi_aws_native  # noqa: F401
        from pulumi.automation import InvalidVersionError, PulumiCommand
    except ImportError as error:
        raise StartFailed(
            f"deployments on AWS need an extra ({error}): pip install 'tidegate[infra]'"
        ) from error
    try:
        return PulumiCommand()
    except FileNotFoundError as error:
        raise StartFailed(
            "there is no `pulumi` on the PATH; install it "
            "(https://www.pulumi.com/docs/install/) and see that `pulumi version` answers"
        ) from error
    except InvalidVersionError as error:
        raise StartFailed(f"the `pulumi` on the PATH does not fit: {error}") from error


def session_of(settings: AwsSettings) -> boto3.Session:
    """With the credentials that the settings name. Raises StartFailed. Blocks."""
    try:
        session = boto3.Session(profile_name=settings.profile, region_name=settings.region)
        found = session.get_credentials()
    except BotoCoreError as error:
        raise StartFailed(f"AWS cannot be asked: {error}; see `aws configure list`") from error
    if found is None:
        raise StartFailed(
            "there are no AWS credentials; give this process a role, or run `aws configure` and "
            "name the profile as `aws.profile`; `aws sts get-caller-identity` shows who it is"
        )
    return session


def parts(
    settings: AwsSettings, directory: Path, cli: PulumiCommand, session: boto3.Session
) -> tuple[Copies, Stacks]:
    """What asks AWS, and what asks Pulumi. Blocks."""
    copies = Copies(settings, session)
    return copies, Stacks(settings, directory / "stacks", cli, copies.unmake)


async def open_aws(
    settings: AwsSettings,
    directory: Path,
    clock: Clock,
    changed: asyncio.Event,
    command: Callable[[], PulumiCommand] = pulumi_command,
    connect: Callable[[AwsSettings], boto3.Session] = session_of,
    pace: Pace = Pace(),
) -> AwsPlace:
    """A place whose files are under `directory`. Raises StartFailed with what to do."""
    cli = await asyncio.to_thread(command)
    session = await asyncio.to_thread(connect, settings)
    copies, stacks = parts(settings, directory, cli, session)
    logs = ContainerLogs(settings, session, directory / "replicas")
    return AwsPlace(Tools(settings, stacks, copies, logs, clock, changed, pace))
