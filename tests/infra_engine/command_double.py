"""A double of the `pulumi` command for the Automation API: the seam is `PulumiCommand`.

    LocalWorkspaceOptions(pulumi_command=PulumiDouble(directory, {"aws": stub}))

The SDK's inline server, the program, its events, the provider and what it asks are real; only the
engine and the back end are ours. A command or a flag that the double does not know is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import yaml
from pulumi.automation import CommandResult, PulumiCommand
from pulumi.automation.errors import create_command_error
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import language_pb2, language_pb2_grpc
from semver import VersionInfo
from tests.infra_engine.events import Reporter, streamed
from tests.infra_engine.plugins import Stub
from tests.infra_engine.server import listening
from tests.infra_engine.stack_double import StackDouble, StackError
from tests.infra_engine.steps import UpdateFailed
from tests.infra_engine.update_double import UpdateDouble
from tests.infra_engine.wire import revealed, secret

UPDATES = ("up", "preview", "refresh", "destroy")
SWITCHES = frozenset(
    {
        "--all",
        "--clear-pending-creates",
        "--force",
        "--json",
        "--no-select",
        "--non-interactive",
        "--plaintext",
        "--preview-only",
        "--refresh",
        "--secret",
        "--show-secrets",
        "--skip-preview",
        "--suppress-outputs",
        "--suppress-progress",
        "--yes",
    }
)
VALUES = frozenset(
    {
        "--client",
        "--color",
        "--event-log",
        "--exec-kind",
        "--file",
        "--message",
        "--page",
        "--page-size",
        "--parallel",
        "--secrets-provider",
        "--stack",
    }
)


class PulumiDouble(PulumiCommand):
    """Stacks in a directory, and the plugins that serve them, by package.

    `called` are the commands that it was given, each as the words before the first flag.
    """

    def __init__(self, directory: Path, plugins: Mapping[str, Stub]) -> None:
        self.command = "pulumi"
        self.version = VersionInfo(3, 272, 0)
        self.directory = directory
        self.plugins = plugins
        self.called: list[str] = []

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], Any] | None = None,
        on_error: Callable[[str], Any] | None = None,
    ) -> CommandResult:
        """What the command prints. Raises CommandError with what it would print to stderr."""
        words, flags = _parsed(args)
        self.called.append(" ".join(words[:2]) if words[0] == "stack" else words[0])
        try:
            said = self._answer(words, flags, Path(cwd))
        except StackError as error:
            text = f"error: {error}"
            if on_error:
                on_error(text)
            raise create_command_error(CommandResult("", text, 255)) from None
        for line in said.splitlines() if on_output else ():
            on_output(line)
        return CommandResult(said, "", 0)

    def _answer(self, words: list[str], flags: dict[str, str], cwd: Path) -> str:
        match words:
            case ["stack", "init", name]:
                StackDouble.create(self.directory, _project(cwd), name)
                return f"Created stack '{name}'"
            case ["stack", "ls"]:
                names = sorted(path.stem for path in self.directory.glob("*.json"))
                return json.dumps([{"name": name, "current": False} for name in names])
            case ["stack", "rm", name]:
                self._stack(name).remove()
                return f"Stack '{name}' has been removed!"
            case ["whoami"]:
                return json.dumps({"user": "test", "url": f"file://{self.directory}"})
        stack = self._stack(flags["--stack"])
        if words[0] in UPDATES:
            return self._update(words[0], stack, flags)
        return _on_stack(stack, words, flags)

    def _stack(self, name: str) -> StackDouble:
        return StackDouble.load(self.directory, name)

    def _update(self, kind: str, stack: StackDouble, flags: dict[str, str]) -> str:
        preview = kind == "preview" or "--preview-only" in flags
        with stack.locked(), streamed(flags.get("--event-log")) as tell:
            reporter = Reporter(tell, planning=preview)
            reporter.say(preludeEvent={"config": {}})
            update = UpdateDouble(stack, self.plugins, reporter, preview=preview)
            if "--clear-pending-creates" in flags:
                stack.pending = [each for each in stack.pending if each["type"] != "creating"]
            try:
                _carry_out(kind, update, flags)
            except UpdateFailed as failed:
                reporter.errors = reporter.errors or [str(failed)]
            reporter.summary()
            reporter.say(cancelEvent={})
            if not preview:
                _note(stack, kind, reporter)
        if reporter.errors:
            raise StackError(
                "update failed\n" + "\n".join(map("error: {}".format, reporter.errors))
            )
        return f"Resources:\n    {dict(reporter.changes)}"


def _carry_out(kind: str, update: UpdateDouble, flags: dict[str, str]) -> None:
    if kind == "destroy":
        return update.destroy()
    if kind == "refresh" or "--refresh" in flags:
        update.refresh()
    if kind == "refresh":
        return None
    with (
        listening(update) as address,
        grpc.insecure_channel(flags["--client"], options=_GRPC_CHANNEL_OPTIONS) as channel,
    ):
        request = language_pb2.RunRequest(
            project=update.stack.project,
            stack=update.stack.name,
            pwd=".",
            monitor_address=address,
            args=[address],
            config={key: str(revealed(each)) for key, each in update.stack.config.items()},
            configSecretKeys=sorted(update.stack.secret_keys),
            dryRun=update.preview,
            parallel=16,
            organization="organization",
        )
        done = language_pb2_grpc.LanguageRuntimeStub(channel).Run(request)
    if done.error or update.reporter.errors:
        raise UpdateFailed(done.error)
    return update.finish()


def _on_stack(stack: StackDouble, words: list[str], flags: dict[str, str]) -> str:
    match words:
        case ["stack", "select"]:
            return ""
        case ["stack", "output"]:
            return json.dumps(revealed(stack.outputs, _mask(flags)))
        case ["stack", "export"]:
            return json.dumps(stack.exported())
        case ["stack", "import"]:
            stack.take(json.loads(Path(flags["--file"]).read_text()))
        case ["stack", "history"]:
            return json.dumps(stack.history[::-1])
        case ["cancel"]:
            stack.unlock()
        case ["config", "set", key, value]:
            _configure(stack, key, value, is_secret="--secret" in flags)
        case ["config", "rm", key]:
            stack.config.pop(key, None)
        case ["config"]:
            return json.dumps(_config(stack))
        case _:
            raise NotImplementedError(f"the double of pulumi knows no {' '.join(words)!r}")
    stack.save()
    return ""


def _configure(stack: StackDouble, key: str, value: str, *, is_secret: bool) -> None:
    full = key if ":" in key else f"{stack.project}:{key}"
    stack.config[full] = secret(value) if is_secret else value
    stack.secret_keys -= {full}
    stack.secret_keys |= {full} if is_secret else set()


def _config(stack: StackDouble) -> dict[str, Any]:
    return {
        key: {"value": revealed(value), "secret": key in stack.secret_keys}
        for key, value in stack.config.items()
    }


def _note(stack: StackDouble, kind: str, reporter: Reporter) -> None:
    """Add the update to the stack's history."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    entry = {"kind": "update" if kind == "up" else kind, "startTime": now, "endTime": now}
    result = "failed" if reporter.errors else "succeeded"
    rest = {"message": "", "environment": {}, "config": {}, "version": len(stack.history) + 1}
    changes = {"resourceChanges": dict(reporter.changes)}
    stack.history.append(entry | rest | changes | {"result": result})
    stack.save()


def _mask(flags: Mapping[str, str]) -> str | None:
    return None if "--show-secrets" in flags else "[secret]"


def _project(cwd: Path) -> str:
    name: str = yaml.safe_load((cwd / "Pulumi.yaml").read_text())["name"]
    return name


def _parsed(args: list[str]) -> tuple[list[str], dict[str, str]]:
    """The words, and the flags with their values; a switch has none."""
    words: list[str] = []
    flags: dict[str, str] = {}
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            words += rest
            break
        name, joined, value = arg.partition("=")
        if not arg.startswith("--"):
            words.append(arg)
        elif name in SWITCHES:
            flags[name] = ""
        elif name in VALUES:
            flags[name] = value if joined else next(rest)
        else:
            raise NotImplementedError(f"the double of pulumi knows no {name}")
    return words, flags
