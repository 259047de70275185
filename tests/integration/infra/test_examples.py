"""The example stacks run as they stand: their programs are applied to a running platform."""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from tests.infra_engine.plugins import InventedCloud, Stub, arns, invented
from tests.infra_engine.program_double import ProgramDouble
from tests.infra_engine.wire import Properties
from tests.integration.infra.conftest import Plane, Stack

from tidegate.protocol.api_keys import new_key

EXAMPLES = Path(__file__).parents[3] / "examples" / "pulumi"


def two_deployments() -> None:
    runpy.run_path(str(EXAMPLES / "two_deployments" / "__main__.py"), run_name="__main__")


def test_two_deployments_are_made_changed_drifted_repaired_and_deleted(
    stack: Stack, plane: Plane
) -> None:
    stack.configure("demo:model", str(plane.model))
    made = stack.up(two_deployments)
    assert (made.errors, made.changes) == ([], {"create": 4})
    assert sorted(plane.names()) == ["chat", "digest"]
    outputs = stack.outputs()
    answer = httpx.post(
        f"{outputs['baseUrl']}/completions",
        headers={"authorization": f"Bearer {outputs['key']}"},
        json={"model": outputs["chat"], "prompt": "hello"},
        timeout=30,
        trust_env=False,
    )
    assert answer.json()["text"].startswith("echo hello")

    stack.configure("demo:most", "4")
    changed = stack.up(two_deployments)
    assert (changed.errors, changed.changes) == ([], {"same": 3, "update": 1})

    with plane.client() as client:
        client.deployments.get("chat").scale(max=9)
        client.deployments.delete("digest")
    assert stack.refresh().changes == {"update": 1, "delete": 1, "same": 1}
    repaired = stack.up(two_deployments)
    assert (repaired.errors, repaired.changes) == ([], {"same": 2, "update": 1, "create": 1})
    with plane.client() as client:
        assert client.deployments.get("chat").spec.scaling.max_replicas == 4
    assert sorted(plane.names()) == ["chat", "digest"]

    assert stack.destroy().errors == []
    assert (plane.names(), stack.resources()) == ([], [])


def everything() -> None:
    runpy.run_path(str(EXAMPLES / "everything" / "__main__.py"), run_name="__main__")


SETTINGS = {
    "accountId": "123456789012",
    "certificate": "arn:aws:acm:us-west-2:123456789012:certificate/1",
    "controlPlaneImage": "123456789012.dkr.ecr.us-west-2.amazonaws.com/plane@sha256:" + "a" * 64,
    "runtimeImage": "123456789012.dkr.ecr.us-west-2.amazonaws.com/run@sha256:" + "b" * 64,
    "alarmEmail": "ops@example.org",
    "databasePassword": "d" * 24,
    "pepper": "cGVwcGVy" * 5,
    "adminKey": new_key(),
}


@pytest.fixture
def on_aws(stub: Stub, tmp_path: Path) -> Iterator[ProgramDouble]:
    """A stack on the engine double, with a cloud that is invented."""
    with invented(InventedCloud(invent=_outputs)) as cloud:
        plugins = {"tidegate": stub, "aws": cloud, "aws-native": cloud}
        stack = ProgramDouble(tmp_path, plugins)
        for key, value in SETTINGS.items():
            secret = key in ("databasePassword", "pepper", "adminKey")
            stack.configure(f"demo:{key}", value, is_secret=secret)
        yield stack


def _outputs(kind: str, name: str, inputs: Properties) -> Properties:
    said = {"dnsName": f"{name}.example", "repositoryUrl": name, "versionId": "1"}
    return arns(kind, name, inputs) | said


def test_everything_can_be_previewed_before_there_is_a_platform(on_aws: ProgramDouble) -> None:
    """The platform's URL is not known yet, so nothing can be asked of it."""
    on_aws.configure("demo:url", "https://tidegate.example.org")
    planned = on_aws.preview(everything)
    assert planned.errors == []
    made = [name for op, name in planned.steps() if op == "create"]
    assert {"tidegate", "rerank", "here", "chat", "digest", "reader"} <= set(made)


@pytest.mark.soak
def test_everything_begins_with_the_platform_and_holds_the_guard_rails(
    on_aws: ProgramDouble,
) -> None:
    made = on_aws.up(everything)
    assert made.errors == []
    outputs = on_aws.outputs()
    assert outputs["tidegateGuardRails"] == "hold"
    assert outputs["url"].startswith("https://")
    assert "key" not in outputs


@pytest.mark.parametrize("name", ["two_deployments", "everything"])
def test_the_project_file_leads_to_the_plugin(name: str) -> None:
    project = yaml.safe_load((EXAMPLES / name / "Pulumi.yaml").read_text())
    [provider] = project["plugins"]["providers"]
    assert provider["name"] == "tidegate"
    found = os.path.normpath(EXAMPLES / name / provider["path"])
    assert found == str(EXAMPLES.parents[1] / ".venv" / "bin")
