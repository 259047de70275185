"""The stack of a file, through Pulumi's Automation API, with its state where the file says.

What Pulumi keeps beside the state, the sealed key of its secrets, lies in `.tidegate-infra` beside
the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pulumi.automation import (
    CommandError,
    InvalidVersionError,
    LocalWorkspace,
    ProjectBackend,
    ProjectSettings,
    PulumiCommand,
    Stack,
    StackNotFoundError,
)
from pulumi.automation.events import EngineEvent

from tidegate_infra.cli import sentences
from tidegate_infra.cli.failures import explain
from tidegate_infra.cli.file import InfraFile
from tidegate_infra.cli.program import Secrets, declare, rails_of
from tidegate_infra.errors import PulumiMissing, StackFailed
from tidegate_infra.policy.guard import guard

PROJECT = "tidegate-infra"
BESIDE = ".tidegate-infra"
PASSPHRASE = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")
Tell = Callable[[str], None]


def pulumi_command() -> PulumiCommand:
    """The CLI on the PATH. Raises PulumiMissing."""
    try:
        return PulumiCommand()
    except FileNotFoundError:
        said = "there is no `pulumi` on the PATH; install it, https://www.pulumi.com/docs/install/"
        raise PulumiMissing(f"{said}, and see that `pulumi version` answers") from None
    except InvalidVersionError as error:
        raise PulumiMissing(f"the `pulumi` on the PATH does not fit: {error}") from None


def require_credentials(region: str) -> None:
    """Raises StackFailed when nothing on this machine says who we are on AWS."""
    from boto3 import Session
    from botocore.exceptions import BotoCoreError

    try:
        found = Session(region_name=region).get_credentials()
    except BotoCoreError as error:
        raise StackFailed(f"AWS cannot be asked: {error}; see: aws configure list") from error
    if found is None:
        raise StackFailed("there are no AWS credentials; give some: aws configure")


def state_url(file: InfraFile, directory: Path) -> str:
    """Pulumi's address of the state."""
    if "://" in file.state:
        return file.state
    return (directory / file.state).absolute().as_uri()


def secrets_provider(file: InfraFile) -> str:
    """Pulumi's address of what seals secrets; an ARN has no host in it."""
    if file.kms_key is None:
        return "passphrase"
    host = "/" if file.kms_key.startswith("arn:") else ""
    return f"awskms://{host}{file.kms_key}?region={file.region}"


class Made(NamedTuple):
    """What an update has come to."""

    changes: str
    """`create 5, delete 1`."""
    outputs: dict[str, Any]
    """What the program exports, without its secrets."""


class OwnStack:
    """The one stack of a file. Its methods block, and raise StackFailed with what to type next."""

    def __init__(self, file: InfraFile, directory: Path, command: PulumiCommand) -> None:
        """`directory` is that of the file."""
        self._file = file
        self._directory = directory
        self._command = command
        self._state = state_url(file, directory)

    def preview(self, secrets: Secrets, tell: Tell) -> str:
        """Each change that an update would make, and a sentence that sums them. Changes nothing."""
        stack = self._found(secrets)
        if stack is None:
            return f"everything will be made; there is no stack {self._file.stack!r} yet"
        with self._explained():
            planned = stack.preview(on_event=_telling(tell, sentences.coming))
        return _summed(planned.change_summary)

    def up(self, secrets: Secrets, tell: Tell) -> Made:
        """Make it so; a second time makes what is missing."""
        with self._explained():
            workspace = self._workspace(secrets)
            stack = Stack.create_or_select(self._file.stack, workspace)
            made = stack.up(on_event=_telling(tell, sentences.done))
        outputs = {key: each.value for key, each in made.outputs.items() if not each.secret}
        return Made(_summed(made.summary.resource_changes or {}), outputs)

    def destroy(self, tell: Tell) -> bool:
        """Take everything away, and the stack with it; False when there is none."""
        stack = self._found(Secrets())
        if stack is None:
            return False
        with self._explained():
            stack.destroy(on_event=_telling(tell, sentences.done))
            stack.workspace.remove_stack(self._file.stack)
        return True

    def _found(self, secrets: Secrets) -> Stack | None:
        with self._explained():
            try:
                return Stack.select(self._file.stack, self._workspace(secrets))
            except StackNotFoundError:
                return None

    def _program(self, secrets: Secrets) -> None:
        with guard(rails_of(self._file)):
            declare(self._file, secrets)

    def _workspace(self, secrets: Secrets) -> LocalWorkspace:
        if self._file.kms_key is None and not any(map(os.environ.get, PASSPHRASE)):
            raise StackFailed(
                "PULUMI_CONFIG_PASSPHRASE: seals the secrets in the state, and must be kept; "
                "name a `kms_key` in the file, or: export PULUMI_CONFIG_PASSPHRASE=…"
            )
        beside = self._directory / BESIDE
        beside.mkdir(exist_ok=True)
        if self._state.startswith("file://"):
            Path(self._state.removeprefix("file://")).mkdir(parents=True, exist_ok=True)
        return LocalWorkspace(
            work_dir=str(beside),
            program=lambda: self._program(secrets),
            pulumi_command=self._command,
            env_vars={
                "AWS_REGION": self._file.region,
                "PULUMI_BACKEND_URL": self._state,
                "PULUMI_SKIP_UPDATE_CHECK": "true",
            },
            secrets_provider=secrets_provider(self._file),
            project_settings=ProjectSettings(
                name=PROJECT, runtime="python", backend=ProjectBackend(self._state)
            ),
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Pulumi's errors as ours."""
        name = self._file.stack
        try:
            yield
        except CommandError as error:
            said = explain(str(error), f"organization/{PROJECT}/{name}", self._state)
            raise StackFailed(f"stack {name}: {said}") from error
        except OSError as error:
            raise StackFailed(f"stack {name}: {error}") from error


def _telling(tell: Tell, say: Callable[[EngineEvent], str | None]) -> Callable[[EngineEvent], None]:
    def hear(event: EngineEvent) -> None:
        if said := say(event):
            tell(said)

    return hear


def _summed(summary: Mapping[Any, int]) -> str:
    """`create 5, delete 1`."""
    counted = {str(getattr(kind, "value", kind)): number for kind, number in summary.items()}
    said = [f"{kind} {number}" for kind, number in counted.items() if kind != "same"]
    return ", ".join(said) or "none; everything is as the file says"
