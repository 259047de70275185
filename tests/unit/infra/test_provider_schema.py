"""The schema for other languages says what the models say."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import grpc
import pytest
from pulumi.runtime.proto import provider_pb2 as messages
from pulumi.runtime.proto import provider_pb2_grpc as services
from pydantic import BaseModel
from typer.testing import CliRunner

from tidegate import spec
from tidegate.protocol.resources import ApiKeyRequest, KeyRole
from tidegate.version import VERSION
from tidegate_infra.cli import app
from tidegate_infra.provider import api_keys, deployments
from tidegate_infra.provider.names import camel
from tidegate_infra.provider.schema import schema

SCHEMA = schema()
TYPES = SCHEMA["types"]
MODELS = [
    spec.CanarySpec,
    spec.CanaryStep,
    spec.GpuSpec,
    spec.HardwareSpec,
    spec.ModelSpec,
    spec.RollbackSpec,
    spec.RolloutSpec,
    spec.RuntimeSpec,
    spec.ScalingSpec,
    spec.ScheduleSpec,
    spec.ShadowSpec,
    spec.SloSpec,
    spec.SpeculationSpec,
]


def of(kind: type) -> Any:
    return TYPES[f"tidegate:index:{kind.__name__.removesuffix('Spec')}"]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_part_of_a_declaration_is_a_type_with_the_same_fields(model: type[BaseModel]) -> None:
    fields = model.model_fields
    assert list(of(model)["properties"]) == [camel(name) for name in fields]
    assert of(model)["required"] == [camel(n) for n, each in fields.items() if each.is_required()]


@pytest.mark.parametrize("kind", [spec.Mode, spec.Precision, spec.Strategy, spec.Task, KeyRole])
def test_every_choice_is_an_enumeration_with_the_same_values(kind: Any) -> None:
    assert [each["value"] for each in of(kind)["enum"]] == [each.value for each in kind]


def test_there_is_no_type_that_nothing_refers_to_and_none_is_missing() -> None:
    text = json.dumps(SCHEMA)
    referred = {part.split('"')[0] for part in text.split("#/types/")[1:]}
    assert referred == set(TYPES)


@pytest.mark.parametrize(
    ("token", "inputs", "more"),
    [
        (deployments.TOKEN, spec.DeploymentSpec, deployments.DeploymentOutputs),
        (api_keys.TOKEN, ApiKeyRequest, api_keys.ApiKeyOutputs),
    ],
)
def test_a_resource_takes_what_is_declared_and_gives_more(
    token: str, inputs: type[BaseModel], more: type[BaseModel]
) -> None:
    resource = SCHEMA["resources"][token]
    declared = [camel(name) for name in inputs.model_fields]
    assert [each for each in resource["inputProperties"] if each != "waitForReady"] == declared
    assert list(resource["properties"]) == [*declared, *map(camel, more.model_fields)]
    assert "name" not in resource["requiredInputs"]


def test_values_of_several_kinds_are_said_to_be_so() -> None:
    scaling, runtime = of(spec.ScalingSpec)["properties"], of(spec.RuntimeSpec)["properties"]
    assert scaling["idleTimeoutS"]["oneOf"] == [{"type": "number"}, {"type": "string"}]
    assert runtime["kvCache"]["oneOf"] == [{"type": "integer"}, {"type": "string"}]
    rollback = of(spec.RollbackSpec)["properties"]["errorRate"]
    assert rollback["oneOf"] == [{"type": "number"}, {"type": "string"}]
    assert rollback["description"].endswith("`off` for none.")
    model = SCHEMA["resources"][deployments.TOKEN]["inputProperties"]["model"]
    assert [each["type"] for each in model["oneOf"]] == ["string", "object"]


def test_secrets_are_marked() -> None:
    assert SCHEMA["resources"][api_keys.TOKEN]["properties"]["key"]["secret"]
    assert SCHEMA["provider"]["inputProperties"]["apiKey"]["secret"]


def test_descriptions_name_properties_as_they_are_written() -> None:
    highest = of(spec.ScalingSpec)["properties"]["maxReplicas"]
    assert highest["description"] == "`max(1, minReplicas)` when absent."


def test_the_command_prints_it() -> None:
    done = CliRunner().invoke(app, ["schema"])
    assert json.loads(done.output) == SCHEMA


def test_the_plugin_says_its_port_and_answers_there() -> None:
    command = [sys.executable, "-m", "tidegate_infra.provider", "127.0.0.1:1", "--logtostderr"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as plugin:
        try:
            assert plugin.stdout is not None
            with grpc.insecure_channel(f"127.0.0.1:{plugin.stdout.readline().strip()}") as channel:
                stub = services.ResourceProviderStub(channel)
                answer = stub.GetSchema(messages.GetSchemaRequest(), timeout=10)
        finally:
            plugin.terminate()
    assert json.loads(answer.schema)["version"] == VERSION
