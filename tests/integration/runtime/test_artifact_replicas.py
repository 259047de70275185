"""Artifacts in the cache of replicas: built once, mended when damaged, refused when not meant."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.integration.runtime.conftest import run_artifact

from tidegate_runtime.artifact.resolve import resolve as resolve_source


def test_two_replicas_that_start_together_build_once(
    spawn: Callable[..., Any], tiny_llama: Path, tmp_path: Path
) -> None:
    replicas = [
        spawn(source=str(tiny_llama), cache_dir=str(tmp_path), precision="int8") for _ in range(2)
    ]
    for replica in replicas:
        replica.wait_for("ready")
    logs = [replica.log_path.read_text() for replica in replicas]
    assert sum("packing int8: 0 of" in log for log in logs) == 1
    listed = run_artifact("list", "--cache-dir", str(tmp_path))["artifacts"]
    assert [item["held"] for item in listed] == [True]
    prune = ("prune", "--cache-dir", str(tmp_path), "--cache-limit-bytes", "0")
    assert run_artifact(*prune)["removed"] == []
    for replica in replicas:
        replica.process.kill()
        replica.process.wait()
    assert len(run_artifact(*prune)["removed"]) == 1


def test_a_planned_artifact_is_served_without_its_source_and_made_again_when_damaged(
    spawn: Callable[..., Any], tiny: Callable[..., Path], tmp_path: Path
) -> None:
    source = tiny("Llama")
    digest = resolve_source(str(source), None, tmp_path).digest
    options: dict[str, Any] = {
        "source": str(source),
        "source_digest": digest,
        "cache_dir": str(tmp_path),
        "precision": "int8",
    }
    made = run_artifact("build", str(source), "--precision", "int8", "--cache-dir", str(tmp_path))
    key = run_artifact("key", digest, "--precision", "int8")["key"]
    assert key == Path(made["artifact"]).name
    config = (source / "config.json").rename(source / "elsewhere")
    replica = spawn(**options)
    replica.wait_for("ready")
    replica.process.kill()
    replica.process.wait()

    weights = Path(made["artifact"]) / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    config.rename(source / "config.json")
    replica = spawn(**options)
    replica.wait_for("ready")
    assert f"{str(weights)!r} is damaged" in replica.log_path.read_text()
    assert weights.read_bytes() == whole


def test_a_build_is_told_while_it_runs_and_ends_with_its_replica(
    spawn: Callable[..., Any], tiny: Callable[..., Path], tmp_path: Path
) -> None:
    replica = spawn(source=str(tiny("Llama")), cache_dir=str(tmp_path), precision="int8")
    deadline = time.monotonic() + 60
    while not replica.status.get("message"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert replica.status["state"] == "loading"
    (builder,) = psutil.Process(replica.process.pid).children()
    replica.process.kill()
    replica.process.wait()
    builder.wait(60)
    assert not builder.is_running()


@pytest.mark.parametrize("task", ["generate", "embed"])
def test_a_replica_refuses_a_source_that_is_not_the_planned_one(
    spawn: Callable[..., Any], tiny_llama: Path, task: str
) -> None:
    replica = spawn(source=str(tiny_llama), source_digest="sha256:planned", task=task)
    assert replica.process.wait(60) == 3
    assert replica.status["reason"] == "SourceChanged"
    assert "sha256:planned" in replica.status["message"]
    assert str(tiny_llama) in replica.status["message"]
