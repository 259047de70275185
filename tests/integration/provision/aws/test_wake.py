"""A request to a deployment that rests at zero in AWS: held, and answered once a copy is there.

The control plane is whole but for its HTTP: its S3, database, gateway and loop are real.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import boto3
import pytest
from tests.conftest import S3_BUCKET
from tests.integration.provision.aws.conftest import SETTINGS, Account
from tests.integration.provision.launch import COMMAND
from tests.tiny_model import write_tiny_model

from tidegate.protocol.resources import DeploymentPhase
from tidegate.spec import DeploymentSpec
from tidegate_controlplane.gateway.forward import Answer
from tidegate_controlplane.process import running
from tidegate_controlplane.provision import places
from tidegate_controlplane.provision.start import SpawningStarter
from tidegate_controlplane.provision.surroundings import Surroundings
from tidegate_controlplane.settings import ReconcileSettings, Settings
from tidegate_controlplane.store.tables import DEFAULT_PROJECT

CHAT = "/v1/chat/completions"


@pytest.fixture
def model(s3_server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a model in S3, which the played replica understands to behave well."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server["AWS_ENDPOINT_URL"])
    directory, client = write_tiny_model(tmp_path / "model"), boto3.client("s3")
    for path in directory.iterdir():
        client.upload_file(str(path), S3_BUCKET, f"good/{path.name}")
    return f"s3://{S3_BUCKET}/good"


async def test_a_request_at_zero_is_held_until_a_copy_answers_it_and_deleting_leaves_nothing(
    account: Account, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def opened(around: Surroundings) -> object:
        return await account.open(SETTINGS, around.changed)

    monkeypatch.setattr(places, "OPENERS", {"aws": opened})
    pace = ReconcileSettings(tick_s=0.1, busy_tick_s=0.02)
    settings = Settings(data_dir=tmp_path, port=0, aws=SETTINGS, reconcile=pace)
    async with running(settings, SpawningStarter(COMMAND)) as (services, _):
        await services.keys.ensure_first()
        spec = DeploymentSpec.model_validate(
            {
                "name": "smol",
                "model": model,
                "mode": "serverless",
                "hardware": {"provisioner": "aws"},
                "scaling": {"idle_timeout_s": 1},
            }
        )
        deployments = services.deployments
        await deployments.apply(DEFAULT_PROJECT, spec)
        served = services.catalog.get(DEFAULT_PROJECT, "smol")
        assert served is not None

        async def ask(number: int) -> Answer:
            body = json.dumps({"model": "smol", "messages": [], "max_tokens": 2}).encode()
            until = services.clock.monotonic() + 60
            key = f"req_{number}"
            return await services.forwarder.call(served, CHAT, body, deadline=until, request_id=key)

        async with asyncio.timeout(60):
            answers = await asyncio.gather(*(ask(number) for number in range(5)))
        assert [answer.status for answer in answers] == [200] * 5
        said = json.loads(answers[0].body)
        assert said["choices"][0]["message"]["content"] == "word word "
        (component,) = account.sagemaker.components.values()
        assert len(component.copies) == 1

        async with asyncio.timeout(60):
            while (
                await deployments.read.get(DEFAULT_PROJECT, "smol")
            ).phase is not DeploymentPhase.IDLE:
                await asyncio.sleep(0.05)
        assert component.copies == []
        assert (await ask(6)).status == 200

        await deployments.delete(DEFAULT_PROJECT, "smol")
        async with asyncio.timeout(60):
            while account.cloud.kept or list(account.pulumi.directory.glob("*.json")):
                await asyncio.sleep(0.05)
        assert account.sagemaker.components == {}
