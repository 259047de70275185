"""The components for AWS, as programs in other languages have them: through a plugin's process.

The engine that the plugin speaks to is our double, and the cloud behind it is invented.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from pulumi.runtime.proto import provider_pb2 as messages
from pulumi.runtime.proto import provider_pb2_grpc as services
from tests.infra_engine.events import Reporter
from tests.infra_engine.plugins import InventedCloud, Stub, invented
from tests.infra_engine.server import listening
from tests.infra_engine.stack_double import Kept, StackDouble
from tests.infra_engine.update_double import UpdateDouble
from tests.infra_engine.wire import plain, struct

import tidegate_infra.host
from tidegate_infra.host.package import NAME

FOLDER = str(Path(tidegate_infra.host.__file__).parent)
ENDPOINT = {
    "name": "chat",
    "mode": "serverless",
    "image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/runtime@sha256:" + "a" * 64,
    "artifactUrl": "s3://models/smol/",
    "executionRoleArn": "arn:aws:iam::123456789012:role/run",
    "subnetIds": ["subnet-1", "subnet-2"],
    "securityGroupIds": ["sg-1"],
    "kmsKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/1",
    "instanceType": "ml.g6.xlarge",
    "memoryMb": 8192,
}


class Plugin:
    """A plugin's process, and the double of the engine that it registers its resources with."""

    def __init__(self, stub: Stub, engine: str, stack: StackDouble) -> None:
        self.stub = stub
        self.stack = stack
        self._engine = engine

    def construct(self, kind: str, inputs: dict[str, Any]) -> Any:
        request = messages.ConstructRequest(
            project="demo",
            stack="test",
            monitorEndpoint=self._engine,
            type=f"{NAME}:index:{kind}",
            name="chat",
            inputs=struct(inputs),
            parallel=4,
        )
        return self.stub.Construct(request, timeout=30)

    def made(self, kind: str) -> list[Kept]:
        return [one for one in self.stack.resources if one.type == kind]


@contextmanager
def running(engine: str) -> Iterator[Stub]:
    """As Pulumi's host of Python starts it: the interpreter, and the folder with PulumiPlugin."""
    command = [sys.executable, FOLDER, engine, "--logtostderr"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            with grpc.insecure_channel(f"127.0.0.1:{process.stdout.readline().strip()}") as channel:
                yield services.ResourceProviderStub(channel)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugin]:
    stack = StackDouble.create(tmp_path_factory.mktemp("stack"), "demo", "test")
    with invented(InventedCloud()) as cloud:
        reporter = Reporter(lambda event: None, planning=False)
        update = UpdateDouble(stack, {"aws": cloud, "aws-native": cloud}, reporter)
        with listening(update) as engine, running(engine) as stub:
            yield Plugin(stub, engine, stack)


def test_the_schema_says_what_each_component_takes_and_gives(plugin: Plugin) -> None:
    answer = plugin.stub.GetSchema(messages.GetSchemaRequest(), timeout=30)
    schema = json.loads(answer.schema)
    endpoint = schema["resources"][f"{NAME}:index:InferenceEndpoint"]
    assert set(ENDPOINT) == set(endpoint["requiredInputs"])
    assert endpoint["inputProperties"]["mode"]["$ref"].endswith(":index:Mode")
    assert endpoint["inputProperties"]["memoryMb"] == {"type": "integer", "plain": True}
    assert endpoint["inputProperties"]["image"] == {"type": "string"}
    platform = schema["resources"][f"{NAME}:index:Platform"]
    assert "region" in platform["requiredInputs"]
    assert platform["properties"]["url"] == {"type": "string"}


def test_an_endpoint_is_made_of_the_inputs_that_another_language_sends(plugin: Plugin) -> None:
    made = plugin.construct("InferenceEndpoint", ENDPOINT | {"maxCopies": 3})
    assert plain(made.state)["endpointName"]
    [component] = plugin.made("aws-native:sagemaker:InferenceComponent")
    needs = component.inputs["specification"]["computeResourceRequirements"]
    assert (component.inputs["inferenceComponentName"], needs["minMemoryRequiredInMb"]) == (
        "chat",
        ENDPOINT["memoryMb"],
    )
    [target] = plugin.made("aws:appautoscaling/target:Target")
    assert (target.inputs["minCapacity"], target.inputs["maxCapacity"]) == (0, 3)


def test_what_cannot_be_is_refused_by_field_and_nothing_is_made(plugin: Plugin) -> None:
    before = len(plugin.stack.resources)
    with pytest.raises(grpc.RpcError, match="min_copies"):
        plugin.construct("InferenceEndpoint", ENDPOINT | {"minCopies": 5})
    assert len(plugin.stack.resources) == before
