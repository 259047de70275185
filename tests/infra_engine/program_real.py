"""Whole programs with the real `pulumi` command and a back end of files, where it is installed.

The same surface as `ProgramDouble`, so that the same tests ask both. What it needs of the plugin is
what a user needs: an executable `pulumi-resource-tidegate` on the PATH.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pulumi import automation
from pulumi.automation.errors import CommandError
from tests.infra_engine.program_double import Outcome, Program
from tests.infra_engine.wire import Properties

PLUGIN = "pulumi-resource-tidegate"


def is_installed() -> bool:
    return shutil.which("pulumi") is not None


class ProgramReal:
    """One stack of a project, changed by the `pulumi` command."""

    def __init__(self, directory: Path, project: str = "demo") -> None:
        for name in ("bin", "state", "work"):
            (directory / name).mkdir()
        plugin = directory / "bin" / PLUGIN
        plugin.write_text(f'#!/bin/sh\nexec {sys.executable} -m tidegate_infra.provider "$@"\n')
        plugin.chmod(0o755)
        options = automation.LocalWorkspaceOptions(
            work_dir=str(directory / "work"),
            project_settings=automation.ProjectSettings(
                project,
                "python",
                backend=automation.ProjectBackend((directory / "state").as_uri()),
            ),
            env_vars={
                "PATH": f"{plugin.parent}{os.pathsep}{os.environ['PATH']}",
                "PULUMI_CONFIG_PASSPHRASE": "a word for tests",
                "PULUMI_SKIP_UPDATE_CHECK": "true",
            },
        )
        self._stack = automation.create_stack("test", project, lambda: None, opts=options)

    def configure(self, key: str, value: str, *, is_secret: bool = False) -> None:
        self._stack.set_config(key, automation.ConfigValue(value, secret=is_secret))

    def preview(self, program: Program) -> Outcome:
        return _outcome(lambda heard: self._stack.preview(program=program, on_event=heard))

    def up(self, program: Program) -> Outcome:
        return _outcome(lambda heard: self._stack.up(program=program, on_event=heard))

    def refresh(self) -> Outcome:
        return _outcome(lambda heard: self._stack.refresh(on_event=heard))

    def destroy(self) -> Outcome:
        return _outcome(lambda heard: self._stack.destroy(on_event=heard))

    def resources(self) -> list[Properties]:
        return self._stack.export_stack().deployment.get("resources") or []

    def outputs(self) -> Properties:
        return {key: each.value for key, each in self._stack.outputs().items()}


def _outcome(work: Callable[[Callable[[Any], None]], Any]) -> Outcome:
    heard: list[Any] = []
    failure: list[str] = []
    try:
        work(heard.append)
    except CommandError as error:
        failure = [str(error)]
    said = [each.diagnostic_event for each in heard if each.diagnostic_event]
    errors = [f"{each.urn}: {each.message}" for each in said if each.severity == "error"]
    summaries = [each.summary_event for each in heard if each.summary_event]
    changes = dict(summaries[-1].resource_changes) if summaries else {}
    steps = [each.res_outputs_event.metadata for each in heard if each.res_outputs_event]
    events = [
        {"resOutputsEvent": {"metadata": {"op": each.op.value, "urn": each.urn}}} for each in steps
    ]
    return Outcome(changes, errors or failure, events)
