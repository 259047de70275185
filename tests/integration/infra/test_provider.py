"""The provider keeps what a stack declares true, asked over gRPC as Pulumi's engine asks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from pulumi.runtime.proto import provider_pb2 as messages
from pulumi.runtime.proto import status_pb2
from tests.infra_engine.wire import UNKNOWN, is_secret, plain, secret, struct
from tests.integration.infra.conftest import API_KEY, DEPLOYMENT, Asked, Plane, refusal, urn

from tidegate import AsyncClient, Client
from tidegate.errors import AuthenticationFailed, ConnectionFailed
from tidegate.profile import Profile, write_profile
from tidegate_infra.provider.deployments import ModelDeployments

NONE, SOME = messages.DiffResponse.DIFF_NONE, messages.DiffResponse.DIFF_SOME


@pytest.fixture
def smol(plane: Plane) -> dict[str, Any]:
    """Inputs that the platform can serve at once."""
    return {"model": str(plane.model), "mode": "serverless"}


# --- check ----------------------------------------------------------------------------------------


def test_inputs_come_back_in_one_spelling_with_the_resources_own_name(provider: Asked) -> None:
    inputs = {"model": "hf://org/m", "mode": "serverless", "runtime": {"kvCache": "2GiB"}}
    assert provider.checked(DEPLOYMENT, inputs) == {
        "name": "smol",
        "model": {"source": "hf://org/m"},
        "mode": "serverless",
        "runtime": {"kvCache": 2 * 1024**3},
        "waitForReady": True,
    }


def test_a_relative_path_is_read_from_the_projects_directory(provider: Asked) -> None:
    inputs = {"model": "models/m", "mode": "serverless"}
    source = provider.checked(DEPLOYMENT, inputs)["model"]["source"]
    assert source == str(Path.cwd() / "models/m")


def test_every_fault_is_named_by_property_with_its_value_and_the_remedy(provider: Asked) -> None:
    inputs = {
        "model": "hf://org/m",
        "mode": "serverless",
        "scaling": {
            "maxReplica": 2,
            "schedule": [{"cron": "0 8 * * *", "durationS": 5, "minReplicas": 1}],
        },
        "labels": {"team": 3, "a/b c": "x"},
        "waitForReady": "soon",
    }
    faults = provider.faults(DEPLOYMENT, inputs)
    assert faults["scaling.maxReplica"] == "unknown field; did you mean 'maxReplicas'?, got 2"
    assert "greater than or equal to 60" in faults["scaling.schedule[0].durationS"]
    assert "got 3" in faults["labels.team"]
    assert faults["waitForReady"] == "must be true or false, got 'soon'"


def test_a_contradiction_speaks_of_properties(provider: Asked) -> None:
    inputs = {"model": "m", "mode": "realtime", "scaling": {"minReplicas": 0}}
    fault = provider.faults(DEPLOYMENT, inputs)["scaling.minReplicas"]
    assert "use mode 'serverless' to scale from zero" in fault
    inputs["scaling"] = {"minReplicas": 3, "maxReplicas": 2}
    fault = provider.faults(DEPLOYMENT, inputs)["scaling.minReplicas"]
    assert "more than scaling.maxReplicas (2)" in fault


def test_the_spelling_of_a_declaration_is_no_property(provider: Asked) -> None:
    inputs = {"model": "m", "mode": "serverless", "scaling": {"max_replicas": 2}}
    fault = provider.faults(DEPLOYMENT, inputs)["scaling.max_replicas"]
    assert fault.startswith("unknown field; did you mean 'maxReplicas'?")


def test_a_secret_value_is_not_shown_by_the_fault_that_it_is(provider: Asked) -> None:
    labels = {"team": "x" * 300}
    inputs = {"model": "m", "mode": "serverless", "labels": secret(labels), "slo": secret("fast")}
    faults = provider.faults(DEPLOYMENT, inputs)
    assert set(faults) == {"labels.team", "slo"}
    assert not any("xxx" in reason or "fast" in reason for reason in faults.values())


def test_what_is_not_known_yet_is_not_judged(provider: Asked) -> None:
    inputs = {
        "model": UNKNOWN,
        "mode": "serverless",
        "runtime": {"precision": "fp8"},
        "hardware": UNKNOWN,
        "scaling": {"maxReplicas": 0, "schedule": [{"cron": UNKNOWN}]},
    }
    assert set(provider.faults(DEPLOYMENT, inputs)) == {"scaling.maxReplicas"}
    inputs["scaling"] = {"maxReplicas": UNKNOWN}
    checked = provider.checked(DEPLOYMENT, inputs)
    assert checked["model"] == {"source": UNKNOWN}
    assert checked["scaling"] == {"maxReplicas": UNKNOWN}


def test_a_reason_to_roll_back_is_turned_off_by_a_word(provider: Asked, smol: Any) -> None:
    rollout = {"strategy": "canary", "rollbackOn": {"errorRate": "off"}}
    _, outputs = provider.create(DEPLOYMENT, smol | {"rollout": rollout})
    assert outputs["rollout"] == rollout


# --- diff -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "replaced", "deleted_first"),
    [
        ({}, [], False),
        ({"scaling": {"maxReplicas": 3}}, [], False),
        ({"labels": {"team.name": "a"}}, [], False),
        ({"waitForReady": False}, [], False),
        ({"name": "other"}, ["name"], False),
        ({"mode": "async"}, ["mode"], True),
        ({"model": {"source": "hf://org/m", "task": "embed"}}, ["model.task"], True),
        ({"name": UNKNOWN}, ["name"], False),
    ],
)
def test_only_what_cannot_change_in_place_replaces(
    provider: Asked, change: Any, replaced: list[str], deleted_first: bool
) -> None:
    inputs = {"model": "hf://org/m", "mode": "serverless"}
    old = provider.checked(DEPLOYMENT, inputs) | {"etag": '"dep_1.1"', "generation": 1}
    diff = provider.diff(DEPLOYMENT, old, inputs | change)
    changed = bool(change) and "waitForReady" not in change
    assert diff.changes == (SOME if changed else NONE)
    assert (list(diff.replaces), diff.deleteBeforeReplace) == (replaced, deleted_first)


def test_a_difference_is_told_by_path_and_kind(provider: Asked) -> None:
    inputs = {"model": "hf://org/m", "mode": "serverless", "slo": {"ttftMs": 300}}
    old = provider.checked(DEPLOYMENT, inputs)
    diff = provider.diff(
        DEPLOYMENT, old, {"model": "hf://org/n", "mode": "batch", "labels": {"a.b": "c"}}
    )
    kinds = {path: each.kind for path, each in diff.detailedDiff.items()}
    assert kinds == {
        "model.source": messages.PropertyDiff.UPDATE,
        "mode": messages.PropertyDiff.UPDATE_REPLACE,
        'labels["a.b"]': messages.PropertyDiff.ADD,
        "slo.ttftMs": messages.PropertyDiff.DELETE,
    }


def test_any_change_of_a_key_replaces_it(provider: Asked) -> None:
    old = provider.checked(API_KEY, {"tokensPerMinute": "off"}) | {"key": secret("tg_x")}
    assert provider.diff(API_KEY, old, {"tokensPerMinute": "off"}).changes == NONE
    diff = provider.diff(API_KEY, old, {"tokensPerMinute": 5})
    assert (list(diff.replaces), diff.deleteBeforeReplace) == (["tokensPerMinute"], False)


# --- create, read, update, delete -----------------------------------------------------------------


def test_a_preview_makes_nothing_and_leaves_open_what_only_the_platform_knows(
    provider: Asked, plane: Plane, smol: Any
) -> None:
    made, outputs = provider.create(DEPLOYMENT, smol, preview=True)
    assert (made, plane.names()) == ("", [])
    assert (outputs["name"], outputs["deploymentId"]) == ("smol", UNKNOWN)
    _, outputs = provider.create(API_KEY, {}, preview=True)
    assert outputs["key"] == secret(UNKNOWN)


def test_a_deployment_is_made_changed_and_deleted(provider: Asked, plane: Plane, smol: Any) -> None:
    made, outputs = provider.create(DEPLOYMENT, smol)
    assert (made, plane.names()) == ("smol", ["smol"])
    assert outputs["baseUrl"] == f"{plane.url}/v1"
    changed = provider.update(DEPLOYMENT, made, outputs, smol | {"scaling": {"maxReplicas": 3}})
    assert (changed["deploymentId"], changed["generation"]) == (outputs["deploymentId"], 2)
    with plane.client() as client:
        assert client.deployments.get("smol").spec.scaling.max_replicas == 3
    provider.delete(DEPLOYMENT, made)
    assert plane.names() == []
    provider.delete(DEPLOYMENT, made)


def test_the_same_declaration_again_changes_nothing(provider: Asked, smol: Any) -> None:
    made, outputs = provider.create(DEPLOYMENT, smol)
    assert provider.update(DEPLOYMENT, made, outputs, smol) == outputs


def test_a_name_that_is_taken_is_not_taken_over(provider: Asked, plane: Plane, smol: Any) -> None:
    with plane.client() as client:
        client.deploy(plane.model, name="smol")
    with pytest.raises(grpc.RpcError) as refused:
        provider.create(DEPLOYMENT, smol)
    assert "pulumi import tidegate:index:ModelDeployment smol smol" in refusal(refused)
    assert "Traceback" not in refusal(refused)
    assert "File" not in refusal(refused)


def test_what_is_there_can_be_imported(provider: Asked, plane: Plane, smol: Any) -> None:
    with plane.client() as client:
        client.deploy(plane.model, name="smol", labels={"team": "a"})
    made, outputs, inputs = provider.read(DEPLOYMENT, "smol", {}, {})
    assert made == "smol"
    declared = provider.checked(DEPLOYMENT, smol | {"labels": {"team": "a"}})
    assert inputs == declared
    assert provider.diff(DEPLOYMENT, outputs, declared).changes == NONE


def test_a_refresh_sees_what_someone_else_changed(provider: Asked, plane: Plane, smol: Any) -> None:
    made, outputs = provider.create(DEPLOYMENT, smol)
    inputs = provider.checked(DEPLOYMENT, smol)
    assert provider.read(DEPLOYMENT, made, outputs, inputs) == (made, outputs, inputs)
    with plane.client() as client:
        client.deployments.get("smol").scale(max=7)
    _, outputs, inputs = provider.read(DEPLOYMENT, made, outputs, inputs)
    assert (outputs["scaling"], inputs["scaling"]) == ({"maxReplicas": 7}, {"maxReplicas": 7})
    assert provider.diff(DEPLOYMENT, outputs, smol).changes == SOME
    assert "scaling" not in provider.update(DEPLOYMENT, made, outputs, smol)


def test_a_refresh_sees_that_someone_else_deleted_it(
    provider: Asked, plane: Plane, smol: Any
) -> None:
    made, outputs = provider.create(DEPLOYMENT, smol)
    with plane.client() as client:
        client.deployments.delete("smol")
    assert provider.read(DEPLOYMENT, made, outputs, {})[0] == ""


def test_an_update_over_what_someone_else_changed_is_refused(
    provider: Asked, plane: Plane, smol: Any
) -> None:
    made, outputs = provider.create(DEPLOYMENT, smol)
    with plane.client() as client:
        client.deployments.get("smol").scale(max=7)
        with pytest.raises(grpc.RpcError) as refused:
            provider.update(DEPLOYMENT, made, outputs, smol | {"scaling": {"maxReplicas": 2}})
        assert "run `pulumi refresh`" in refusal(refused)
        assert client.deployments.get("smol").spec.scaling.max_replicas == 7


def test_what_was_made_but_does_not_start_keeps_its_id_and_is_mended_by_the_next_update(
    provider: Asked, plane: Plane, smol: Any
) -> None:
    inputs = smol | {"mode": "realtime", "labels": secret({"team": "a"})}
    (plane.model / "refuse.md").touch()
    with pytest.raises(grpc.RpcError) as refused:
        provider.create(DEPLOYMENT, inputs, timeout_s=1)
    [status] = [
        status_pb2.Status.FromString(value)
        for key, value in refused.value.trailing_metadata()
        if key == "grpc-status-details-bin"
    ]
    made = messages.ErrorResourceInitFailed()
    assert status.details[0].Unpack(made)
    assert (made.id, plane.names()) == ("smol", ["smol"])
    assert "its log ends: the model is refused" in made.reasons[0]
    assert is_secret(plain(made.properties)["labels"])
    (plane.model / "refuse.md").unlink()
    outputs = provider.update(DEPLOYMENT, made.id, plain(made.properties), inputs)
    assert outputs["generation"] == 1
    with plane.client() as client:
        assert client.deployments.get("smol").phase == "ready"


def test_a_start_that_takes_too_long_is_told_with_its_phase(
    provider: Asked, plane: Plane, smol: Any
) -> None:
    (plane.model / "refuse.md").touch()
    inputs = smol | {"mode": "realtime"}
    with pytest.raises(grpc.RpcError, match=r"still \w+ .*after 0.01 s"):
        provider.create(DEPLOYMENT, inputs, timeout_s=0.01)
    assert plane.names() == ["smol"]


def test_without_waiting_a_step_is_done_when_it_is_declared(
    provider: Asked, plane: Plane, smol: Any
) -> None:
    (plane.model / "refuse.md").touch()
    inputs = smol | {"mode": "realtime", "waitForReady": False}
    assert provider.create(DEPLOYMENT, inputs)[0] == "smol"


def test_what_the_platform_refuses_is_said_in_its_words_alone(
    provider: Asked, plane: Plane
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        provider.create(DEPLOYMENT, {"model": "/nowhere/at/all", "mode": "serverless"})
    assert "/nowhere/at/all" in refusal(refused)
    assert "Traceback" not in refusal(refused)
    assert "site-packages" not in refusal(refused)


# --- keys -----------------------------------------------------------------------------------------


def test_a_key_works_is_secret_and_is_revoked(provider: Asked, plane: Plane) -> None:
    made, outputs = provider.create(API_KEY, {"requestsPerMinute": "off"})
    assert is_secret(outputs["key"])
    assert (outputs["name"], outputs["role"]) == ("smol", "inference")
    assert (outputs["requestsPerMinute"], outputs["tokensPerMinute"]) == ("off", 100_000)
    with Client(plane.url, outputs["key"]["value"]) as client:
        assert client.models.served() == []
    inputs = provider.checked(API_KEY, {"requestsPerMinute": "off"})
    assert provider.read(API_KEY, made, outputs, inputs) == (made, outputs, inputs)
    provider.delete(API_KEY, made)
    provider.delete(API_KEY, made)
    assert provider.read(API_KEY, made, outputs, inputs)[0] == ""
    with (
        Client(plane.url, outputs["key"]["value"]) as client,
        pytest.raises(AuthenticationFailed),
    ):
        client.models.served()


def test_a_key_that_cannot_be_is_told_by_property(provider: Asked) -> None:
    faults = provider.faults(API_KEY, {"role": "root", "requestsPerMinute": 0, "nam": "x"})
    assert set(faults) == {"role", "requestsPerMinute", "nam"}
    assert "got 0" in faults["requestsPerMinute"]


# --- configuration --------------------------------------------------------------------------------


def test_a_setting_that_does_not_exist_is_named(provider: Asked) -> None:
    answer = provider.stub.CheckConfig(
        messages.CheckRequest(urn=urn("pulumi:providers:tidegate"), news=struct({"uri": "x"}))
    )
    [failure] = answer.failures
    assert (failure.property, failure.reason) == ("uri", "unknown setting; did you mean 'url'?")


def test_a_connection_file_is_enough(
    provider: Asked, plane: Plane, smol: Any, tmp_path: Path
) -> None:
    path = tmp_path / "connection.json"
    with pytest.raises(grpc.RpcError, match="'tidegate up' writes one"):
        provider.configure(connectionFile=str(path))
    write_profile(path, Profile(plane.url, plane.api_key))
    provider.configure(connectionFile=str(path))
    assert provider.create(DEPLOYMENT, smol)[0] == "smol"


def test_a_wrong_key_is_refused_without_being_shown(
    provider: Asked, plane: Plane, smol: Any
) -> None:
    wrong = "tg_wrong_" + "a" * 30
    provider.configure(url=plane.url, apiKey=secret(wrong))
    with pytest.raises(grpc.RpcError) as refused:
        provider.create(DEPLOYMENT, smol)
    assert "API key" in refusal(refused)
    assert wrong not in refusal(refused)


def test_a_platform_that_is_not_known_yet_can_be_previewed(provider: Asked, smol: Any) -> None:
    provider.configure(url=UNKNOWN, apiKey=UNKNOWN)
    assert provider.create(DEPLOYMENT, smol, preview=True)[0] == ""


# --- an answer that never comes -------------------------------------------------------------------


class Deaf(httpx.AsyncHTTPTransport):
    """Sends a declaration, and loses the answer."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if request.method == "PUT":
            await response.aclose()
            raise httpx.ReadError("the connection broke", request=request)
        return response


async def created_unheard(plane: Plane, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    declared, _ = ModelDeployments.checked(inputs, "smol")
    async with AsyncClient(plane.url, plane.api_key, transport=Deaf()) as client:
        return await ModelDeployments(client).create(declared, 0)


async def test_what_was_made_unheard_is_the_stacks_own(plane: Plane, smol: Any) -> None:
    made, outputs = await created_unheard(plane, smol)
    assert (made, outputs["generation"], plane.names()) == ("smol", 1, ["smol"])


async def test_what_another_has_made_is_not_taken_for_an_answer_that_was_lost(
    plane: Plane, smol: Any
) -> None:
    with plane.client() as client:
        client.deploy(plane.model, name="smol", labels={"of": "another"})
    with pytest.raises(ConnectionFailed):
        await created_unheard(plane, smol)
