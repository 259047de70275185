"""One Pulumi stack per deployment, through the Automation API, with its state in S3.

Every method blocks for as long as AWS takes, and belongs in a thread. Any of them may be the second
try: of an update that was cut in the middle, the lock that its dead process left is taken away,
what it had begun to make is looked for and ended, and the update is made again.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from tidegate.protocol.resources import Severity
from tidegate_controlplane.provision.aws.failures import AwsFailed, Failure, explain
from tidegate_controlplane.provision.aws.locks import Holder, Lock, holder_of, locks_in
from tidegate_controlplane.provision.aws.names import is_ours
from tidegate_controlplane.provision.aws.program import Program
from tidegate_controlplane.provision.aws.sentences import News, drift_of, news_of
from tidegate_controlplane.settings import AwsSettings

if TYPE_CHECKING:
    from pulumi.automation import LocalWorkspace, PulumiCommand, Stack
    from pulumi.automation.events import EngineEvent

T = TypeVar("T")
Tell = Callable[[News], None]
Unmake = Callable[[Sequence[str]], None]
"""Ends what an update may have begun to make, given the URNs."""
PROJECT = "tidegate"


class Stacks:
    """The stacks of this installation. Raises AwsFailed."""

    def __init__(
        self,
        settings: AwsSettings,
        directory: Path,
        command: PulumiCommand,
        unmake: Unmake,
    ) -> None:
        """`directory` holds what Pulumi writes beside the state."""
        self._settings = settings
        self._directory = directory
        self._command = command
        self._unmake = unmake
        self._host = socket.gethostname()

    def up(self, name: str, program: Program, tell: Tell, *, look: bool = False) -> None:
        """Make it so: a preview that says what is about to change, then the change.

        `look` at what there is first, and mend what is not as it was left.
        """
        from pulumi.automation import Stack

        workspace = self._workspace(name, program)
        with self._explained(name):
            stack = Stack.create_or_select(name, workspace)
            self._resume(stack, tell)
            if look:
                self._unlocked(stack, stack.refresh, tell)
            planned = self._unlocked(stack, stack.preview, tell)
            if said := _changes(planned.change_summary):
                tell(("StackPlanned", f"stack {name}: {said}", Severity.INFO))
            self._unlocked(stack, lambda: stack.up(on_event=_telling(tell)), tell)

    def destroy(self, name: str, tell: Tell) -> None:
        """Take everything away, and the stack with it; one that is not there is gone already."""
        stack = self._found(name)
        if stack is None:
            return
        with self._explained(stack.name):
            self._resume(stack, tell)
            self._unlocked(stack, lambda: stack.destroy(on_event=_telling(tell)), tell)
            stack.workspace.remove_stack(stack.name)
        tell(("StackDestroyed", f"stack {stack.name} is gone", Severity.INFO))

    def drift(self, name: str) -> list[str]:
        """What is not as the stack left it, a sentence each; nothing is changed."""
        found: dict[str, None] = {}

        def hear(event: EngineEvent) -> None:
            if said := drift_of(event):
                found[said] = None

        if stack := self._found(name):
            with self._explained(stack.name):
                stack.preview_refresh(on_event=hear)
        return list(found)

    def interrupt(self) -> None:
        """Ask every update that runs to stop after the step in hand, and to note how far it came.

        One that is not asked ends with this process in the middle of a step.
        """
        for child in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):
                if child.name() == "pulumi":
                    child.send_signal(signal.SIGINT)

    def names(self) -> list[str]:
        """Of every stack of this installation."""
        with self._explained(""):
            found = self._workspace("names").list_stacks()
        return [each.name for each in found if is_ours(self._settings, each.name)]

    def _found(self, name: str) -> Stack | None:
        from pulumi.automation import Stack, StackNotFoundError

        with self._explained(name):
            try:
                return Stack.select(name, self._workspace(name))
            except StackNotFoundError:
                return None

    def _resume(self, stack: Stack, tell: Tell) -> None:
        """End what an update that was cut in the middle had begun to make; nobody else knows it."""
        held = stack.export_stack().deployment or {}
        begun = [each for each in map(_begun, held.get("pending_operations") or ()) if each]
        if not begun:
            return
        self._unmake(begun)
        self._unlocked(stack, lambda: stack.refresh(clear_pending_creates=True), tell)
        said = f"stack {stack.name}: {len(begun)} steps were cut in the middle and begin anew"
        tell(("StackResumed", said, Severity.WARNING))

    def _unlocked(self, stack: Stack, act: Callable[[], T], tell: Tell) -> T:
        """What `act` returns, once the lock of a process of this machine that died is away."""
        from pulumi.automation import ConcurrentUpdateError

        try:
            return act()
        except ConcurrentUpdateError as error:
            locks = locks_in(str(error))
            holder = holder_of(locks, self._host)
            if holder is not Holder.DEAD:
                raise AwsFailed(self._locked(stack.name, holder, locks)) from error
        stack.cancel()
        said = f"stack {stack.name}: the lock of {locks[0]}, which has ended, is taken away"
        tell(("StackUnlocked", said, Severity.WARNING))
        self._resume(stack, tell)
        return act()

    def _locked(self, name: str, holder: Holder, locks: Sequence[Lock]) -> Failure:
        who = ", ".join(map(str, locks)) or "somebody"
        if holder is Holder.RUNNING:
            return Failure("StackBusy", f"stack {name}: {who} still updates it; it is tried again")
        return Failure(
            "StackLocked",
            f"stack {name} is locked by {who}; when that runs no more: PULUMI_BACKEND_URL="
            f"{self._settings.state!r} pulumi cancel --yes --stack organization/{PROJECT}/{name}",
        )

    def _workspace(self, name: str, program: Program | None = None) -> LocalWorkspace:
        from pulumi.automation import LocalWorkspace, ProjectBackend, ProjectSettings

        directory = self._directory / name
        directory.mkdir(parents=True, exist_ok=True)
        settings = self._settings
        surroundings = {
            "AWS_REGION": settings.region,
            "PULUMI_BACKEND_URL": settings.state,
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        if settings.profile:
            surroundings["AWS_PROFILE"] = settings.profile
        return LocalWorkspace(
            work_dir=str(directory),
            program=program,
            pulumi_command=self._command,
            env_vars=surroundings,
            secrets_provider=_secrets_provider(settings),
            project_settings=ProjectSettings(
                name=PROJECT, runtime="python", backend=ProjectBackend(settings.state)
            ),
        )

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Pulumi's errors as ours."""
        from pulumi.automation import CommandError

        try:
            yield
        except CommandError as error:
            raise AwsFailed(explain(_cause(str(error)), self._settings)) from error
        except OSError as error:
            why = f"stack {name}: {error}"
            raise AwsFailed(Failure("StackFailed", why)) from error


def _secrets_provider(settings: AwsSettings) -> str:
    """Pulumi's address of the key: an ARN has no host in it."""
    host = "/" if settings.kms_key.startswith("arn:") else ""
    return f"awskms://{host}{settings.kms_key}?region={settings.region}"


def _telling(tell: Tell) -> Callable[[EngineEvent], None]:
    def hear(event: EngineEvent) -> None:
        if news := news_of(event):
            tell(news)

    return hear


def _changes(summary: Mapping[Any, int]) -> str:
    """`create 5, delete 1`; empty when nothing changes."""
    counted = {str(getattr(kind, "value", kind)): number for kind, number in summary.items()}
    return ", ".join(f"{kind} {number}" for kind, number in counted.items() if kind != "same")


def _begun(operation: Mapping[str, Any]) -> str | None:
    """The URN of what was being made when the update was cut."""
    if operation["type"] != "creating":
        return None
    resource: Mapping[str, Any] = operation.get("resource", operation)
    return str(resource["urn"])


def _cause(said: str) -> str:
    """What matters of a failed command's output: the lines that say an error."""
    lines = [line for line in said.splitlines() if "error" in line.lower()]
    return "\n".join(lines) or said
