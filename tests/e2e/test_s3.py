"""A platform whose models, payloads and results live in S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from tests.e2e.platform import PARIS, Platform, start, stop

BUCKET = "tidegate-test"


@pytest.fixture
def platform_on_s3(
    s3_server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    running = start(
        tmp_path / "data", tmp_path / "config", "--objects", f"s3://{BUCKET}/{tmp_path.name}"
    )
    yield running
    stop(running)


@pytest.mark.soak
def test_a_model_in_s3_is_served_and_its_work_is_kept_there(
    platform_on_s3: Platform, smollm2: str, tmp_path: Path
):
    bucket = boto3.resource("s3").Bucket(BUCKET)
    bucket.upload_file(smollm2, "models/smollm2.gguf")

    source = f"s3://{BUCKET}/models/smollm2.gguf"
    platform_on_s3.cli("deploy", source, "--name", "cloud", "--mode", "async", "--wait")
    with platform_on_s3.client() as client:
        deployment = client.deployments.get("cloud")
        (result,) = deployment.batch([_greedy(PARIS)]).wait(timeout_s=300).results()

    assert "Paris" in result.text
    kept = [item.key for item in bucket.objects.filter(Prefix=tmp_path.name)]
    assert any("files" in key or "batch" in key for key in kept), kept
    assert not list((platform_on_s3.data).glob("objects/**/*.jsonl"))


def _greedy(question: str) -> dict[str, Any]:
    message = {"role": "user", "content": question}
    return {"messages": [message], "temperature": 0, "max_tokens": 24}
