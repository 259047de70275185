"""Whole programs: the SDK, the provider and the platform are real.

The engine is our double, or the real one where there is a `pulumi` on the PATH.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pulumi
import pytest
from tests.infra_engine.wire import is_secret
from tests.integration.infra.conftest import Plane, Stack

from tidegate import Client
from tidegate.spec import RollbackSpec, RolloutSpec, ScalingSpec, Strategy
from tidegate_infra import ApiKey, ModelDeployment, Provider

Program = Callable[[], None]


def chat(plane: Plane, **changes: Any) -> Program:
    """A deployment, and another that carries its name in a label."""

    def declare() -> None:
        parts: dict[str, Any] = {"mode": "serverless", "scaling": ScalingSpec(max_replicas=2)}
        chat = ModelDeployment("chat", model=str(plane.model), **(parts | changes))
        after = {"after": chat.name, "at": chat.deployment_id}
        ModelDeployment("digest", model=str(plane.model), mode="batch", labels=after)
        key = ApiKey("reader", tokens_per_minute=None)
        pulumi.export("model", chat.name)
        pulumi.export("url", chat.base_url)
        pulumi.export("key", key.key)

    return declare


def test_a_preview_tells_what_would_be_made_and_makes_nothing(stack: Stack, plane: Plane) -> None:
    done = stack.preview(chat(plane))
    assert done.errors == []
    assert done.changes == {"create": 4}
    assert (plane.names(), stack.resources()) == ([], [])


def test_a_program_is_made_so_and_left_alone_the_second_time(stack: Stack, plane: Plane) -> None:
    assert stack.up(chat(plane)).errors == []
    assert sorted(plane.names()) == ["chat", "digest"]
    outputs = stack.outputs()
    assert (outputs["model"], outputs["url"]) == ("chat", f"{plane.url}/v1")
    with Client(plane.url, outputs["key"]) as client:
        assert {each.id for each in client.models.served()} == {"chat", "digest"}
    assert stack.up(chat(plane)).changes == {"same": 4}


def test_secrets_lie_in_the_state_as_secrets_alone(stack: Stack, plane: Plane) -> None:
    def declare() -> None:
        here = Provider("here", url=plane.url, api_key=plane.api_key)
        reader = ApiKey("reader", opts=pulumi.ResourceOptions(provider=here))
        pulumi.export("key", reader.key)

    assert stack.up(declare).errors == []
    kept = {one["urn"].rsplit("::", 1)[-1]: one for one in stack.resources()}
    assert is_secret(kept["reader"]["outputs"]["key"])
    assert is_secret(kept["demo-test"]["outputs"]["key"])
    assert is_secret(kept["here"]["inputs"]["apiKey"])


def test_a_change_updates_in_place(stack: Stack, plane: Plane) -> None:
    stack.up(chat(plane))
    before = kept_id(stack)
    canary = RolloutSpec(
        strategy=Strategy.CANARY, rollback_on=RollbackSpec(error_rate=None, drift=0.5)
    )
    done = stack.up(chat(plane, rollout=canary, scaling={"max_replicas": 3}))
    assert (done.errors, done.changes) == ([], {"same": 3, "update": 1})
    assert kept_id(stack) == before
    with plane.client() as client:
        spec = client.deployments.get("chat").spec
    assert (spec.rollout, spec.scaling.max_replicas) == (canary, 3)


def test_a_new_mode_replaces_the_deployment_and_those_that_name_it_follow(
    stack: Stack, plane: Plane
) -> None:
    stack.up(chat(plane))
    before = kept_id(stack)
    done = stack.up(chat(plane, mode="realtime"))
    assert done.errors == []
    steps = [step for step in done.steps() if step[0] != "same"]
    assert steps == [
        ("delete-replaced", "chat"),
        ("create-replacement", "chat"),
        ("replace", "chat"),
        ("update", "digest"),
    ]
    with plane.client() as client:
        label = client.deployments.get("digest").spec.labels["at"]
        assert label == client.deployments.get("chat").view.id != before


def test_a_new_name_is_made_before_the_old_one_goes(stack: Stack, plane: Plane) -> None:
    stack.up(chat(plane))
    done = stack.up(chat(plane, name="talk"))
    steps = [step for step in done.steps() if step[0] != "same"]
    assert [op for op, name in steps if name == "chat"] == [
        "create-replacement",
        "replace",
        "delete-replaced",
    ]
    assert sorted(plane.names()) == ["digest", "talk"]


def test_a_fault_names_resource_and_property_and_nothing_is_made(
    stack: Stack, plane: Plane
) -> None:
    done = stack.up(chat(plane, scaling={"max_replica": 2}))
    [error] = done.errors
    assert "ModelDeployment resource 'chat' has a problem" in error
    assert "property scaling.maxReplica: unknown field; did you mean 'maxReplicas'?" in error
    assert plane.names() == []


def test_drift_is_seen_by_a_refresh_and_repaired_by_the_next_update(
    stack: Stack, plane: Plane
) -> None:
    stack.up(chat(plane))
    with plane.client() as client:
        client.deployments.get("chat").scale(max=9)
        client.deployments.delete("digest")
    done = stack.up(chat(plane, scaling=ScalingSpec(max_replicas=4)))
    assert "run `pulumi refresh`" in done.errors[0]
    assert stack.refresh().changes == {"update": 1, "delete": 1, "same": 1}
    done = stack.up(chat(plane))
    assert (done.errors, done.changes) == ([], {"same": 2, "update": 1, "create": 1})
    with plane.client() as client:
        assert client.deployments.get("chat").spec.scaling.max_replicas == 2
    assert stack.refresh().changes == {"same": 3}


def test_a_deployment_that_does_not_start_is_kept_and_finished_later(
    stack: Stack, plane: Plane
) -> None:
    (plane.model / "refuse.md").touch()
    soon = pulumi.CustomTimeouts(create="1s", update="1s")
    waiting = chat(plane, mode="realtime", opts=pulumi.ResourceOptions(custom_timeouts=soon))
    failed, give_up = stack.up(waiting), time.monotonic() + 60
    while "still provisioning" in failed.errors[0]:  # the replica was not refused yet
        assert time.monotonic() < give_up
        failed = stack.up(waiting)
    assert "its log ends: the model is refused" in failed.errors[0]
    assert plane.names() == ["chat"]
    (plane.model / "refuse.md").unlink()
    done = stack.up(chat(plane, mode="realtime"))
    assert (done.errors, done.changes["update"]) == ([], 1)


def test_destroying_leaves_nothing(stack: Stack, plane: Plane) -> None:
    stack.up(chat(plane))
    key = stack.outputs()["key"]
    assert stack.destroy().errors == []
    assert (plane.names(), stack.resources()) == ([], [])
    with Client(plane.url, key) as client, pytest.raises(Exception, match="revoked"):
        client.models.served()


def test_a_platform_can_be_named_in_the_program(stack: Stack, plane: Plane) -> None:
    stack.configure("tidegate:url", "http://127.0.0.1:1")

    def declare() -> None:
        here = Provider("here", url=plane.url, api_key=plane.api_key)
        opts = pulumi.ResourceOptions(provider=here)
        ModelDeployment("chat", model=str(plane.model), mode="async", opts=opts)

    assert stack.up(declare).errors == []
    assert plane.names() == ["chat"]
    assert stack.destroy().errors == []


def kept_id(stack: Stack) -> str:
    [one] = [each for each in stack.resources() if each["urn"].endswith("::chat")]
    return str(one["outputs"]["deploymentId"])
