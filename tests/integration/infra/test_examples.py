"""The example stacks run as they stand: their programs are applied to a running platform."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

import httpx
import pytest
import yaml
from tests.integration.infra.conftest import Plane, Stack

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


@pytest.mark.parametrize("name", ["two_deployments"])
def test_the_project_file_leads_to_the_plugin(name: str) -> None:
    project = yaml.safe_load((EXAMPLES / name / "Pulumi.yaml").read_text())
    [provider] = project["plugins"]["providers"]
    assert provider["name"] == "tidegate"
    found = os.path.normpath(EXAMPLES / name / provider["path"])
    assert found == str(EXAMPLES.parents[1] / ".venv" / "bin")
