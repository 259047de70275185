"""Whole programs against the engine double, without the Automation API: `pulumi up` in a test."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime import settings
from pulumi.runtime.stack import run_in_stack
from tests.infra_engine.events import Reporter
from tests.infra_engine.plugins import Stub
from tests.infra_engine.server import listening
from tests.infra_engine.stack_double import StackDouble
from tests.infra_engine.steps import UpdateFailed
from tests.infra_engine.update_double import UpdateDouble
from tests.infra_engine.wire import Properties, revealed, secret

Program = Callable[[], Any]


@dataclass(frozen=True)
class Outcome:
    """What an update did: how many resources by kind of step, and what it complained of."""

    changes: dict[str, int]
    errors: list[str]
    events: list[dict[str, Any]]

    def steps(self) -> list[tuple[str, str]]:
        """Kind of step and the resource's name, in the order of their ends."""
        done = [e["resOutputsEvent"]["metadata"] for e in self.events if "resOutputsEvent" in e]
        return [(each["op"], each["urn"].rsplit("::", 1)[-1]) for each in done]


class ProgramDouble:
    """One stack of a project, changed as the `pulumi` command would change it."""

    def __init__(self, directory: Path, plugins: Mapping[str, Stub], project: str = "demo") -> None:
        self.stack = StackDouble.create(directory, project, "test")
        self._plugins = plugins

    def configure(self, key: str, value: str, *, is_secret: bool = False) -> None:
        """As `pulumi config set key value`."""
        self.stack.config[key] = secret(value) if is_secret else value
        self.stack.secret_keys |= {key} if is_secret else set()

    def preview(self, program: Program) -> Outcome:
        return self._carry_out(lambda update: self._run(program, update), preview=True)

    def up(self, program: Program) -> Outcome:
        return self._carry_out(lambda update: self._run(program, update))

    def refresh(self) -> Outcome:
        return self._carry_out(UpdateDouble.refresh)

    def destroy(self) -> Outcome:
        return self._carry_out(UpdateDouble.destroy)

    def resources(self) -> list[Properties]:
        """As `pulumi stack export --show-secrets` prints them."""
        return self.stack.exported()["deployment"]["resources"]

    def outputs(self) -> Properties:
        """What the program exported, secrets revealed."""
        return revealed(self.stack.outputs)

    def _carry_out(self, work: Callable[[UpdateDouble], None], preview: bool = False) -> Outcome:
        events: list[dict[str, Any]] = []
        with self.stack.locked():
            reporter = Reporter(events.append, planning=preview)
            update = UpdateDouble(self.stack, self._plugins, reporter, preview=preview)
            try:
                work(update)
            except UpdateFailed as failed:
                reporter.errors = reporter.errors or [str(failed)]
        return Outcome(dict(reporter.changes), reporter.errors, events)

    def _run(self, program: Program, update: UpdateDouble) -> None:
        with listening(update) as address:
            context = contextvars.copy_context()
            context.run(self._run_in_stack, program, address, update)
        if update.reporter.errors:
            raise UpdateFailed
        update.finish()

    def _run_in_stack(self, program: Program, address: str, update: UpdateDouble) -> None:
        settings.reset_options(
            project=self.stack.project,
            stack=self.stack.name,
            monitor_address=address,
            engine_address=address,
            preview=update.preview,
            organization="organization",
            root_directory="/",
        )
        values = {key: revealed(value) for key, value in self.stack.config.items()}
        pulumi.runtime.set_all_config(values, sorted(self.stack.secret_keys))
        try:
            asyncio.run(run_in_stack(program))
        except Exception as error:  # noqa: BLE001 - of the program, which the engine reports
            if not update.reporter.errors:
                update.reporter.error(str(error))
