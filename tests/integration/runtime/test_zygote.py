"""A zygote with everything imported, and the replicas it forks."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.runtime.conftest import Replica, Zygote, write_config

HEAVY = ("torch", "transformers", "litestar", "uvicorn", "pydantic", "tidegate_runtime", "sympy")
PROMPT = {"model": "test-model", "prompt": "one two three", "max_tokens": 16, "ignore_eos": True}


def complete(replica: Any, **fields: Any) -> str:
    with replica.client() as client:
        answer = client.post("/v1/completions", json={**PROMPT, **fields})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def config_of(replica: Any) -> Path:
    path: Path = replica.log_path.with_name("config.json")
    return path


def children_of(pid: int) -> list[int]:
    """Alive ones, whichever thread started them."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sorted(int(c) for task in tasks for c in (task / "children").read_text().split())


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@pytest.fixture(scope="module")
def artifact(artifact_of: Callable[..., Path], tiny_llama: Path) -> Path:
    return artifact_of(tiny_llama)


def test_it_has_one_thread_and_its_replicas_import_next_to_nothing(
    cache_dir: Path, artifact: Path, tmp_path: Path
) -> None:
    zygote = Zygote(tmp_path, PYTHONPROFILEIMPORTTIME="1")
    fields = {"source": str(artifact), "precision": "auto", "parent_pid": os.getpid()}
    config = write_config(tmp_path / "replica", cache_dir, **fields)
    log_path = config.with_name("log")
    replica = Replica(zygote.fork(config, log_path), config.with_name("status.json"), log_path)
    replica.wait_for("ready")
    complete(replica)
    replica.process.kill()
    lines = replica.log_path.read_text().splitlines()
    imported = [line.split("|")[-1].strip() for line in lines if line.startswith("import time")]
    # Litestar looks again for plugins that are not installed.
    mattering = [name for name in imported if not name.startswith("litestar.plugins.")]
    assert [name for name in mattering if name.split(".")[0] in HEAVY] == []
    assert threads_of(zygote.process.pid) == 1
    assert zygote.close() == 0


def test_a_warm_model_answers_as_a_cold_one(
    spawn: Callable[..., Any], zygote: Any, artifact: Path
) -> None:
    cold = spawn(source=str(artifact), precision="auto")
    cold.wait_for("ready")
    wanted = complete(cold, temperature=0)
    zygote.warm(config_of(cold))
    assert "is warm" in zygote.log_path.read_text()
    warm = spawn(source=str(artifact), precision="auto")
    warm.wait_for("ready")
    assert complete(warm, temperature=0) == wanted


def test_a_template_process_is_forked_and_not_spawned_by_the_replica(
    spawn: Callable[..., Any], zygote: Any, artifact: Path
) -> None:
    replica = spawn(source=str(artifact), precision="auto")
    replica.wait_for("ready")
    chat = {"model": "test-model", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
    with replica.client() as client:
        assert client.post("/v1/chat/completions", json=chat).status_code == 200
    assert children_of(replica.process.pid) == []
    (fork_server,) = children_of(zygote.process.pid)
    templates = children_of(fork_server)
    assert templates != []
    replica.process.kill()
    replica.process.wait()
    deadline = time.monotonic() + 10
    while set(templates) <= set(children_of(fork_server)):
        assert time.monotonic() < deadline, "the template process outlives its replica"
        time.sleep(0.01)


def test_two_forks_of_one_process_do_not_draw_the_same_tokens(
    spawn: Callable[..., Any], artifact: Path
) -> None:
    replicas = [spawn(source=str(artifact), precision="auto") for _ in range(2)]
    for replica in replicas:
        replica.wait_for("ready")
    first, second = (complete(replica, temperature=1.5, max_tokens=48) for replica in replicas)
    assert first != second


def test_a_warm_artifact_that_is_damaged_later_is_refused(
    spawn: Callable[..., Any], zygote: Any, artifact: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "artifact"
    shutil.copytree(artifact, copy)
    replica = spawn(source=str(copy), precision="auto")
    replica.wait_for("ready")
    zygote.warm(config_of(replica))
    weights = copy / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused = spawn(source=str(copy), precision="auto")
    status = refused.wait_for("failed")
    assert status["reason"] == "DamagedArtifact"


def test_what_cannot_be_warmed_is_said_and_harms_nothing(
    spawn: Callable[..., Any], zygote: Any, artifact: Path, tmp_path: Path
) -> None:
    zygote.warm(tmp_path / "missing.json")
    (tmp_path / "broken.json").write_text("{")
    zygote.warm(tmp_path / "broken.json")
    config = json.loads(config_of(spawn(source=str(artifact), precision="auto")).read_text())
    (tmp_path / "nowhere.json").write_text(json.dumps({**config, "source": str(tmp_path)}))
    zygote.warm(tmp_path / "nowhere.json")
    said = zygote.log_path.read_text()
    assert "not warmed: [Errno 2] No such file or directory" in said
    assert threads_of(zygote.process.pid) == 1
