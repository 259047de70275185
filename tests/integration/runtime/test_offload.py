"""A replica whose weights do not fit what they may take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

QUESTION = {"model": "test-model", "prompt": "the tide", "max_tokens": 16, "temperature": 0}


def answer(replica: Any) -> str:
    with replica.client() as client:
        given = client.post("/v1/completions", json=QUESTION)
    assert given.status_code == 200, given.text
    return str(given.json()["choices"][0]["text"])


def test_it_says_what_it_says_with_room_for_all(
    spawn: Callable[..., Any], tiny: Callable[..., Path]
) -> None:
    model = tiny("Llama", hidden_size=64, intermediate_size=128, num_hidden_layers=6)
    start = {"source": str(model), "precision": "int8", "threads": 1}
    whole, streamed = spawn(**start), spawn(**start, offload_bytes=140_000)
    for replica in (whole, streamed):
        replica.wait_for("ready")
    assert answer(streamed) == answer(whole)
    assert "of 6 layers" in streamed.log_path.read_text()


def test_room_for_less_than_two_layers_is_refused(
    spawn: Callable[..., Any], tiny_llama: Path
) -> None:
    replica = spawn(source=str(tiny_llama), precision="int8", offload_bytes=1000)
    assert replica.process.wait(60) == 3
    assert replica.status["reason"] == "OffloadTooSmall"
    assert "offload_bytes 1000" in replica.status["message"]
