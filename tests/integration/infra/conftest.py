"""A running control plane with played replicas, and the provider that speaks to it over gRPC."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from pulumi.runtime.proto import provider_pb2 as messages
from tests.infra_engine.plugins import Stub, served
from tests.infra_engine.program_double import ProgramDouble
from tests.infra_engine.program_real import ProgramReal, is_installed
from tests.infra_engine.wire import Properties, plain, struct
from tests.tiny_model import write_tiny_model

from tidegate import Client
from tidegate_controlplane.settings import ReconcileSettings, Settings
from tidegate_infra.provider.provider import TidegateProvider
from tidegate_infra.provider.sdk_faults import Servicer

DEPLOYMENT = "tidegate:index:ModelDeployment"
API_KEY = "tidegate:index:ApiKey"
WITHIN_S = 60


@dataclass(frozen=True)
class Plane:
    """A control plane on loopback, and a model that it can serve."""

    url: str
    api_key: str
    model: Path

    def client(self) -> Client:
        return Client(self.url, self.api_key)

    def names(self) -> list[str]:
        with self.client() as client:
            return [each.name for each in client.deployments.list()]


@pytest.fixture(scope="session")
def running_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    home = tmp_path_factory.mktemp("plane")
    settings = Settings(
        data_dir=home,
        port=0,
        shutdown_s=1.0,
        reconcile=ReconcileSettings(tick_s=0.1, backoff_base_s=0.05, backoff_max_s=0.1),
    )
    (home / "log").touch()
    command = [sys.executable, str(Path(__file__).with_name("plane.py"))]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, settings.model_dump_json()], stdout=log, stderr=log, cwd=home
        )
    try:
        said = _connection(settings.connection_path, process, home / "log")
        yield Plane(said["url"], said["api_key"], write_tiny_model(home / "model"))
    finally:
        process.terminate()
        process.wait(WITHIN_S)


def _connection(path: Path, process: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    deadline = time.monotonic() + WITHIN_S
    while not path.exists():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    return json.loads(path.read_text())


@pytest.fixture
def plane(running_plane: Plane) -> Iterator[Plane]:
    """The control plane, without deployments at first and at last."""
    yield running_plane
    (running_plane.model / "refuse.md").unlink(missing_ok=True)
    with running_plane.client() as client:
        for each in client.deployments.list():
            each.delete()


@dataclass(frozen=True)
class Asked:
    """The provider, asked as Pulumi's engine asks it."""

    stub: Stub

    def configure(self, **config: Any) -> None:
        request = messages.ConfigureRequest(args=struct(config), acceptSecrets=True)
        self.stub.Configure(request)

    def check(self, kind: str, inputs: Properties, name: str = "smol") -> Any:
        return self.stub.Check(messages.CheckRequest(urn=urn(kind, name), news=struct(inputs)))

    def checked(self, kind: str, inputs: Properties, name: str = "smol") -> Properties:
        answer = self.check(kind, inputs, name)
        assert not answer.failures, answer.failures
        return plain(answer.inputs)

    def faults(self, kind: str, inputs: Properties) -> dict[str, str]:
        """What is wrong, by property."""
        return {each.property: each.reason for each in self.check(kind, inputs).failures}

    def diff(self, kind: str, outputs: Properties, inputs: Properties) -> Any:
        news = struct(self.checked(kind, inputs))
        request = messages.DiffRequest(urn=urn(kind), olds=struct(outputs), news=news)
        return self.stub.Diff(request)

    def create(
        self, kind: str, inputs: Properties, *, preview: bool = False, timeout_s: float = 0
    ) -> tuple[str, Properties]:
        properties = struct(self.checked(kind, inputs))
        request = messages.CreateRequest(
            urn=urn(kind), properties=properties, preview=preview, timeout=timeout_s
        )
        made = self.stub.Create(request)
        return made.id, plain(made.properties)

    def update(
        self, kind: str, resource_id: str, outputs: Properties, inputs: Properties
    ) -> Properties:
        news = struct(self.checked(kind, inputs))
        request = messages.UpdateRequest(
            urn=urn(kind), id=resource_id, olds=struct(outputs), news=news
        )
        return plain(self.stub.Update(request).properties)

    def read(
        self, kind: str, resource_id: str, outputs: Properties, inputs: Properties
    ) -> tuple[str, Properties, Properties]:
        request = messages.ReadRequest(
            urn=urn(kind), id=resource_id, properties=struct(outputs), inputs=struct(inputs)
        )
        found = self.stub.Read(request)
        return found.id, plain(found.properties), plain(found.inputs)

    def delete(self, kind: str, resource_id: str) -> None:
        self.stub.Delete(messages.DeleteRequest(urn=urn(kind), id=resource_id))


def urn(kind: str, name: str = "smol") -> str:
    return f"urn:pulumi:test::demo::{kind}::{name}"


def refusal(error: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    return error.value.details()


@pytest.fixture(scope="session")
def stub() -> Iterator[Stub]:
    provider = TidegateProvider()
    with served(Servicer([], "0.1.0", provider, "127.0.0.1:1"), provider.close) as asked:
        yield asked


@pytest.fixture
def provider(stub: Stub, plane: Plane) -> Asked:
    """The provider, configured for the control plane."""
    asked = Asked(stub)
    asked.configure(url=plane.url, apiKey=plane.api_key)
    return asked


Stack = ProgramDouble | ProgramReal


@pytest.fixture
def stack(stub: Stub, plane: Plane, tmp_path: Path) -> Stack:
    """A stack that is configured for the control plane; a double without the real `pulumi`."""
    stack = ProgramReal(tmp_path) if is_installed() else ProgramDouble(tmp_path, {"tidegate": stub})
    stack.configure("tidegate:url", plane.url)
    stack.configure("tidegate:apiKey", plane.api_key, is_secret=True)
    return stack
