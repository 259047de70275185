"""The engine double carries programs out in the order that Pulumi's engine would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi import automation
from pulumi.automation.errors import CommandError, ConcurrentUpdateError
from tests.infra_engine.command_double import PulumiDouble
from tests.infra_engine.plugins import InventedCloud, Stub, invented
from tests.infra_engine.program_double import ProgramDouble
from tests.infra_engine.stack_double import StackDouble


class Thing(pulumi.CustomResource):
    """A resource of the invented cloud; a change of `fixed` replaces it."""

    arn: pulumi.Output[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None, **props: Any) -> None:
        super().__init__("cloud:index:Thing", name, {"arn": None, **props}, opts)


@pytest.fixture
def cloud() -> InventedCloud:
    return InventedCloud(replacing=frozenset({"fixed"}))


@pytest.fixture
def plugins(cloud: InventedCloud) -> Iterator[dict[str, Stub]]:
    with invented(cloud) as stub:
        yield {"cloud": stub}


@pytest.fixture
def program(tmp_path: Path, plugins: dict[str, Stub]) -> ProgramDouble:
    return ProgramDouble(tmp_path, plugins)


def two(**first: Any) -> Any:
    """A program of two things, the second of which names the first."""

    def declare() -> None:
        one = Thing("one", **first)
        other = Thing("other", of=one.arn)
        pulumi.export("of", other.arn)
        pulumi.export("hidden", pulumi.Output.secret("word"))

    return declare


def test_a_preview_makes_nothing_and_passes_unknown_values_on(
    program: ProgramDouble, cloud: InventedCloud
) -> None:
    done = program.preview(two())
    assert done.errors == []
    assert done.changes == {"create": 3}
    assert (cloud.steps, program.stack.resources) == ([], [])


def test_what_was_made_is_left_alone_the_second_time(
    program: ProgramDouble, cloud: InventedCloud
) -> None:
    assert program.up(two()).changes == {"create": 3}
    assert program.outputs()["hidden"] == "word"
    steps = len(cloud.steps)
    assert program.up(two()).changes == {"same": 3}
    assert len(cloud.steps) == steps


def test_a_replacement_is_made_before_the_old_one_goes(program: ProgramDouble) -> None:
    program.up(two(fixed="a"))
    done = program.up(two(fixed="b"))
    steps = [step for step in done.steps() if step[0] != "same"]
    assert steps == [
        ("create-replacement", "one"),
        ("replace", "one"),
        ("delete-replaced", "one"),
    ]


def test_what_the_program_no_longer_declares_is_deleted(
    program: ProgramDouble, cloud: InventedCloud
) -> None:
    program.up(two())
    assert program.up(lambda: Thing("one")).changes == {"same": 2, "delete": 1}
    assert list(cloud.kept) == ["one-1"]
    assert program.destroy().errors == []
    assert (cloud.kept, program.stack.resources) == ({}, [])


def test_a_refresh_finds_what_changed_and_what_is_gone(
    program: ProgramDouble, cloud: InventedCloud
) -> None:
    program.up(two(size=1))
    cloud.kept["one-1"]["size"] = 2
    del cloud.kept["other-1"]
    assert program.refresh().changes == {"update": 1, "delete": 1}
    assert program.up(two(size=1)).changes == {"same": 1, "update": 1, "create": 1}
    assert cloud.kept["one-1"]["size"] == 1


def test_a_failed_step_ends_the_update_and_keeps_what_was_done(
    program: ProgramDouble, cloud: InventedCloud
) -> None:
    def refuse(step: str, kind: str, name: str) -> None:
        if (step, name) == ("create", "other"):
            raise ValueError("no capacity")

    cloud.before = refuse
    done = program.up(two())
    assert done.errors == ["urn:pulumi:test::demo::cloud:index:Thing::other: no capacity"]
    assert list(cloud.kept) == ["one-1"]
    cloud.before = lambda *_: None
    assert program.up(two()).changes == {"same": 2, "create": 1}


# --- through the Automation API -------------------------------------------------------------------


def stack_of(command: PulumiDouble, program: Any, directory: Path) -> automation.Stack:
    directory.mkdir(exist_ok=True)
    options = automation.LocalWorkspaceOptions(
        pulumi_command=command,
        work_dir=str(directory),
        project_settings=automation.ProjectSettings("demo", "python"),
    )
    return automation.create_or_select_stack("one", "demo", program, opts=options)


def test_the_automation_api_sees_events_outputs_and_history(
    tmp_path: Path, plugins: dict[str, Stub]
) -> None:
    command = PulumiDouble(tmp_path / "stacks", plugins)
    stack = stack_of(command, two(), tmp_path / "work")
    stack.set_config("demo:colour", automation.ConfigValue("red", secret=True))
    assert stack.get_all_config()["demo:colour"].value == "red"
    assert stack.preview().change_summary == {"create": 3}
    heard: list[str] = []
    events = []
    result = stack.up(on_event=events.append)
    heard = [e.res_outputs_event.metadata.urn for e in events if e.res_outputs_event]
    assert [urn.rsplit("::", 1)[-1] for urn in heard] == ["demo-one", "one", "other"]
    assert result.outputs["hidden"].secret
    assert (result.summary.result, result.summary.resource_changes) == ("succeeded", {"create": 3})
    assert stack.refresh().summary.resource_changes == {"same": 2}
    assert len(stack.export_stack().deployment["resources"]) == 4
    stack.destroy()
    stack.workspace.remove_stack("one")
    assert stack.workspace.list_stacks() == []


def test_an_update_that_was_killed_leaves_its_lock_and_what_was_pending(
    tmp_path: Path, plugins: dict[str, Stub], cloud: InventedCloud
) -> None:
    directory = tmp_path / "stacks"
    stack = stack_of(PulumiDouble(directory, plugins), two(), tmp_path / "work")

    def die(*_: str) -> None:
        (directory / "copy").mkdir()
        for path in (directory / "one.json", *directory.glob("locks/one/*.json")):
            (directory / "copy" / path.name).write_bytes(path.read_bytes())
        raise ValueError("killed")

    cloud.before = die
    with pytest.raises(CommandError, match="killed"):
        stack.up()
    said, lock = sorted((directory / "copy").iterdir(), key=lambda path: path.name != "one.json")
    said.replace(directory / "one.json")
    lock.replace(directory / "locks" / "one" / lock.name)
    cloud.before = lambda *_: None
    with pytest.raises(ConcurrentUpdateError, match=r"the stack is currently locked by 1 lock"):
        stack.up()
    stack.cancel()
    events = []
    stack.up(on_event=events.append)
    warnings = [e.diagnostic_event.message for e in events if e.diagnostic_event]
    assert "1 pending operations" in warnings[0]
    assert len(StackDouble.load(directory, "one").pending) == 1
    stack.refresh(clear_pending_creates=True)
    assert StackDouble.load(directory, "one").pending == []
