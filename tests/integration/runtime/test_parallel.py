"""A replica whose model is divided over processes: it answers as one, and ends as one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import save_file
from tests.integration.runtime.test_adapters import base_model
from tests.unit.runtime.adapters.tiny_adapters import attach, save

QUESTION = {
    "model": "test-model",
    "prompt": "the tide comes in",
    "max_tokens": 24,
    "temperature": 0,
    "ignore_eos": True,
}


@pytest.fixture(scope="module")
def model(tiny: Callable[..., Path]) -> Path:
    """Its heads, groups and vocabulary have two parts."""
    return tiny("Llama", hidden_size=64, intermediate_size=128)


@pytest.fixture
def start(spawn: Callable[..., Any], model: Path) -> Callable[..., Any]:
    """A ready replica in int8, divided over two processes unless told otherwise."""

    def make(**fields: Any) -> Any:
        fields = {"precision": "int8", "threads": 2, "tensor_parallel": 2, **fields}
        replica = spawn(**{"source": str(model), **fields})
        replica.wait_for("ready")
        return replica

    return make


def answer(replica: Any, **fields: Any) -> str:
    with replica.client() as client:
        given = client.post("/v1/completions", json={**QUESTION, **fields})
    assert given.status_code == 200, given.text
    return str(given.json()["choices"][0]["text"])


def ranks_of(pid: int) -> list[int]:
    """Its forks; what renders chat templates is another program."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = Path(f"/proc/{pid}/cmdline").read_bytes()
    return [int(child) for child in children if Path(f"/proc/{child}/cmdline").read_bytes() == own]


def wait_until_gone(pids: list[int]) -> None:
    wait_until(lambda: not any(_runs(pid) for pid in pids))


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_it_says_what_one_process_says_and_a_drain_ends_all(start: Callable[..., Any]) -> None:
    alone, divided = start(tensor_parallel=1), start()
    ranks = ranks_of(divided.process.pid)
    assert (len(ranks_of(alone.process.pid)), len(ranks)) == (0, 1)
    assert answer(divided) == answer(alone)
    divided.process.send_signal(signal.SIGTERM)
    assert divided.process.wait(60) == 0
    assert not any(map(_runs, ranks))


def test_it_guesses_by_its_first_layers_and_says_the_same(start: Callable[..., Any]) -> None:
    plain = start()
    guessing = start(speculation={"method": "early_exit", "exit_layer": 1, "max_tokens": 3})
    assert answer(guessing) == answer(plain)
    assert guessing.metric("vllm:spec_decode_num_draft_tokens_total") > 0


def test_a_process_that_dies_ends_the_answers_and_the_replica_which_says_why(
    start: Callable[..., Any],
) -> None:
    replica = start()
    (rank,) = ranks_of(replica.process.pid)
    asked = {**QUESTION, "max_tokens": 400, "stream": True}
    with replica.client() as client, client.stream("POST", "/v1/completions", json=asked) as given:
        lines = given.iter_lines()
        next(lines)
        os.kill(rank, signal.SIGKILL)
        rest = [line for line in lines if line]
    assert '"error"' in rest[-1]
    assert replica.process.wait(60) == 1
    assert (replica.status["state"], replica.status["reason"]) == ("failed", "EngineDead")
    assert "rank" in replica.status["message"]


def test_a_process_that_dies_while_nothing_is_asked_is_noticed(start: Callable[..., Any]) -> None:
    replica = start()
    (rank,) = ranks_of(replica.process.pid)
    os.kill(rank, signal.SIGKILL)
    assert replica.process.wait(60) == 1
    assert f"rank 1 of this replica, process {rank}, has ended" in replica.status["message"]


def test_a_process_that_dies_while_an_adapter_loads_fails_the_load_and_the_replica(
    start: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    adapter = save(attach(base_model(model)), tmp_path / "a")
    handed = tmp_path / "handed"
    handed.mkdir()
    replica = start(environment={"TMPDIR": str(handed)})
    (rank,) = ranks_of(replica.process.pid)
    # It is told of the adapter, and cannot take it before it dies.
    os.kill(rank, signal.SIGSTOP)
    asked = {"name": "a", "source": str(adapter)}
    with ThreadPoolExecutor(1) as pool, replica.client() as client:
        loading = pool.submit(client.post, "/adapters", json=asked)
        wait_until(lambda: any(handed.glob("tidegate-adapter-*/*")))
        assert not loading.done()
        os.kill(rank, signal.SIGKILL)
        given = loading.result(60)
    assert given.status_code == 503
    assert f"rank 1 of this replica, process {rank}, has ended" in given.text
    assert replica.process.wait(60) == 1
    assert (replica.status["state"], replica.status["reason"]) == ("failed", "EngineDead")
    assert list(handed.iterdir()) == []


def write_adapter(directory: Path) -> Path:
    """A random adapter of SmolLM2-135M on all of its linears."""
    torch.manual_seed(0)
    shapes = {
        **dict.fromkeys(("self_attn.q_proj", "self_attn.o_proj"), (576, 576)),
        **dict.fromkeys(("self_attn.k_proj", "self_attn.v_proj"), (192, 576)),
        **dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), (1536, 576)),
        "mlp.down_proj": (576, 1536),
    }
    tensors = {}
    for layer in range(30):
        for name, (outputs, inputs) in shapes.items():
            module = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{module}.lora_A.weight"] = torch.randn(8, inputs) / inputs**0.5
            tensors[f"{module}.lora_B.weight"] = torch.randn(outputs, 8) * 0.02
    linears = [name.rpartition(".")[2] for name in shapes]
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=linears, task_type="CAUSAL_LM")
    config.save_pretrained(directory)
    save_file(tensors, directory / "adapter_model.safetensors")
    return directory


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_real_model_over_three_processes_says_what_it_says_in_one_with_an_adapter_and_without(
    start: Callable[..., Any],
    artifact_of: Callable[..., Path],
    gguf: Path,
    tmp_path: Path,
    precision: str,
) -> None:
    fields = {
        "source": str(artifact_of(gguf, precision)),
        "precision": precision,
        "adapters": {"a": str(write_adapter(tmp_path / "a"))},
        "kv_cache_bytes": 64 << 20,
    }
    alone, divided = start(tensor_parallel=1, **fields), start(tensor_parallel=3, **fields)
    said = {
        name: answer(alone, model=name, prompt="The capital of France is", max_tokens=12)
        for name in ("test-model", "test-model:a")
    }
    assert said["test-model"] != said["test-model:a"]
    for name, text in said.items():
        assert answer(divided, model=name, prompt="The capital of France is", max_tokens=12) == text
    for replica in (alone, divided):
        replica.process.kill()


def test_no_process_outlives_a_replica_that_is_killed(start: Callable[..., Any]) -> None:
    replica = start()
    ranks = ranks_of(replica.process.pid)
    replica.process.kill()
    replica.process.wait(60)
    wait_until_gone(ranks)


def test_a_model_that_has_no_such_parts_is_refused(spawn: Callable[..., Any], model: Path) -> None:
    replica = spawn(source=str(model), precision="int8", tensor_parallel=3)
    assert replica.process.wait(60) == 3
    assert replica.status["reason"] == "CannotDivide"
    assert "tensor_parallel 3" in replica.status["message"]
