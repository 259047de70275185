"""Heads made by the command that users give, and served by a replica that is told of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

BODY = {"model": "test-model", "prompt": "The tide", "temperature": 0, "max_tokens": 60}


def test_medusa_heads_are_trained_declared_and_change_no_token(
    spawn: Callable[..., Any], tiny: Callable[..., Path], cache_dir: Path, tmp_path: Path
) -> None:
    source = tiny("Llama", max_position_embeddings=2048)
    text = tmp_path / "text"
    text.write_text("".join(f"On day {day} the tide was {day % 7} m.\n" for day in range(400)))
    heads = tmp_path / "heads"
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("tidegate")),
            *("distill", str(source), "--text", str(text), "--output", str(heads)),
            *("--method", "medusa", "--levels", "2", "--tokens", "1", "--epochs", "1"),
            *("--precision", "int8", "--cache-dir", str(cache_dir), "--threads", "1", "--json"),
        ],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["method"], made["levels"], made["exit_layer"]) == ("medusa", 2, None)
    assert made["trained_tokens"] > 0
    speculation = {"method": "medusa", "heads": str(heads)}
    plain, guessing = (
        spawn(source=str(source), precision="int8", **options)
        for options in ({}, {"speculation": speculation})
    )
    said = []
    for replica in (plain, guessing):
        replica.wait_for("ready")
        with replica.client() as client:
            said.append(client.post("/v1/completions", json=BODY).json()["choices"])
    assert said[0] == said[1]
    assert plain.metric("vllm:spec_decode_num_draft_tokens_total") == 0
    assert guessing.metric("vllm:spec_decode_num_draft_tokens_total") > 0
