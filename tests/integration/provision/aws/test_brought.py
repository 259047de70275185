"""What SageMaker brings to a copy beside its model, from the declaration to the stack.

The control plane is whole but for its HTTP: its S3, database, planner and loop are real.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from tests.conftest import S3_BUCKET
from tests.integration.provision.aws.conftest import SETTINGS, Account
from tests.integration.provision.launch import COMMAND
from tests.tiny_heads import digest_of, write_tiny_heads
from tests.tiny_model import write_tiny_model

from tidegate.spec import DeploymentSpec
from tidegate_controlplane.errors import Invalid
from tidegate_controlplane.process import running
from tidegate_controlplane.provision import places
from tidegate_controlplane.provision.start import SpawningStarter
from tidegate_controlplane.provision.surroundings import Surroundings
from tidegate_controlplane.settings import ReconcileSettings, Settings
from tidegate_controlplane.store.tables import DEFAULT_PROJECT

Upload = Callable[[Path, str], str]


@pytest.fixture
def upload(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Upload:
    """Puts the files of a directory into S3; returns their address."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server["AWS_ENDPOINT_URL"])

    def put(directory: Path, prefix: str) -> str:
        client = boto3.client("s3")
        for path in directory.iterdir():
            client.upload_file(str(path), S3_BUCKET, f"{prefix}/{path.name}")
        return f"s3://{S3_BUCKET}/{prefix}"

    return put


async def test_heads_in_s3_are_brought_to_a_copy_and_those_of_a_directory_refused(
    account: Account, upload: Upload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def opened(around: Surroundings) -> object:
        return await account.open(SETTINGS, around.changed)

    monkeypatch.setattr(places, "OPENERS", {"aws": opened})
    made = write_tiny_heads(tmp_path / "heads")
    model = upload(write_tiny_model(tmp_path / "model"), "good")
    heads = upload(made, "heads")

    def declared(heads: str) -> DeploymentSpec:
        return DeploymentSpec.model_validate(
            {
                "name": "smol",
                "model": model,
                "mode": "realtime",
                "hardware": {"provisioner": "aws"},
                "runtime": {"speculation": {"method": "medusa", "heads": heads}},
            }
        )

    pace = ReconcileSettings(tick_s=0.1, busy_tick_s=0.02)
    settings = Settings(data_dir=tmp_path, port=0, aws=SETTINGS, reconcile=pace)
    async with running(settings, SpawningStarter(COMMAND)) as (services, _):
        await services.keys.ensure_first()
        with pytest.raises(Invalid, match=f"aws s3 sync {made} s3://BUCKET/PREFIX/"):
            await services.deployments.apply(DEFAULT_PROJECT, declared(str(made)))
        await services.deployments.apply(DEFAULT_PROJECT, declared(heads))
        async with asyncio.timeout(60):
            while not account.cloud.containers:
                await asyncio.sleep(0.05)
    (container,) = account.cloud.containers.values()
    (brought,) = container["additionalModelDataSources"]
    assert brought["channelName"] == "heads"
    assert brought["s3DataSources"][0]["s3Uri"] == f"{heads}/"
    told = container["environment"]
    asked, pinned = (json.loads(told[f"TIDEGATE_{name}"]) for name in ("SPECULATION", "HEADS"))
    assert asked["heads"] == "/opt/ml/additional-model-data-sources/heads"
    assert pinned == {"source_digest": digest_of(made)}
