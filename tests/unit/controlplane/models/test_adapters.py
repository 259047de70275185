"""How large declared adapters are, read from where they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from safetensors.numpy import save_file

from tidegate.spec import DeploymentSpec
from tidegate_controlplane.domain.adapters import Update
from tidegate_controlplane.models.adapters import AdapterSizes, Sizes

BUCKET = "tidegate-test"
QUERY = "base_model.model.model.layers.0.self_attn.q_proj"


def write_adapter(path: Path, rank: int = 4, up_rank: int | None = None) -> Path:
    path.mkdir()
    tensors = {
        f"{QUERY}.lora_A.weight": np.zeros((rank, 64), dtype=np.float32),
        f"{QUERY}.lora_B.weight": np.zeros((32, up_rank or rank), dtype=np.float32),
    }
    save_file(tensors, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text("{}")
    return path


async def sizes_of(sizes: AdapterSizes, **adapters: Path | str) -> Sizes:
    sources = {name: str(source) for name, source in adapters.items()}
    return await sizes.of(
        DeploymentSpec.model_validate(
            {
                "name": "smol",
                "model": "/m",
                "mode": "serverless",
                "runtime": {"adapters": sources},
            }
        )
    )


async def test_the_size_is_read_from_the_weights_each_time(tmp_path: Path) -> None:
    one, two = write_adapter(tmp_path / "one"), write_adapter(tmp_path / "two", rank=8)
    sizes = AdapterSizes()
    found = await sizes_of(sizes, a=one, b=two)
    assert found.known == [(Update(4, 64, 32, "q_proj"),), (Update(8, 64, 32, "q_proj"),)]
    assert found.warnings == []
    (two / "adapter_model.safetensors").rename(one / "adapter_model.safetensors")
    assert (await sizes_of(sizes, a=one)).known == [(Update(8, 64, 32, "q_proj"),)]


async def test_names_of_one_source_are_counted_once(tmp_path: Path) -> None:
    one = write_adapter(tmp_path / "one")
    assert len((await sizes_of(AdapterSizes(), a=one, b=one)).known) == 1


async def test_what_cannot_be_read_is_said_by_its_name(tmp_path: Path) -> None:
    gone, odd = write_adapter(tmp_path / "gone"), write_adapter(tmp_path / "odd", up_rank=5)
    (gone / "adapter_model.safetensors").unlink()
    found = await sizes_of(
        AdapterSizes(), good=write_adapter(tmp_path / "good"), gone=gone, odd=odd
    )
    assert len(found.known) == 1
    missing, unfit = found.warnings
    assert missing.startswith("runtime.adapters.gone: its memory is not planned for: cannot read")
    assert f"the factors of {QUERY!r} do not fit" in unfit


async def test_a_declaration_does_not_wait_for_a_source_that_is_slow(tmp_path: Path) -> None:
    one = write_adapter(tmp_path / "one")
    found = await sizes_of(AdapterSizes(read_s=0), a=one)
    assert found.known == []
    assert found.unknown == {"a": "it was not read within 0 s"}


@pytest.fixture
def s3(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    yield client
    client.close()


async def test_those_in_a_bucket_are_read_once(s3: Any, tmp_path: Path) -> None:
    weights = write_adapter(tmp_path / "one") / "adapter_model.safetensors"
    key = f"sizes/{tmp_path.name}/adapter_model.safetensors"
    s3.upload_file(str(weights), BUCKET, key)
    sizes, source = AdapterSizes(), f"s3://{BUCKET}/sizes/{tmp_path.name}"
    first = await sizes_of(sizes, a=source)
    s3.delete_object(Bucket=BUCKET, Key=key)
    assert await sizes_of(sizes, a=source) == first
    assert first.known == [(Update(4, 64, 32, "q_proj"),)]
    assert "does not exist: there is no" in (await sizes_of(AdapterSizes(), a=source)).unknown["a"]
