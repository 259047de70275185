"""A replica whose model is divided over processes: it answers as one, and ends as one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
        replica = spawn(source=str(model), **fields)
        replica.wait_for("ready")
        return replica

    return make


def answer(replica: Any) -> str:
    with replica.client() as client:
        given = client.post("/v1/completions", json=QUESTION)
    assert given.status_code == 200, given.text
    return str(given.json()["choices"][0]["text"])


def ranks_of(pid: int) -> list[int]:
    """Its forks; what renders chat templates is another program."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = Path(f"/proc/{pid}/cmdline").read_bytes()
    return [int(child) for child in children if Path(f"/proc/{child}/cmdline").read_bytes() == own]


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, pids
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
