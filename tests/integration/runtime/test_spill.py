"""Replica processes that leave prefixes to those after them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

STORY = "".join(f"Line {number} of a story that is told in turns.\n" for number in range(8))


def turn(client: httpx.Client, *said: str) -> tuple[str, int]:
    """The next turn of a conversation, and how many of its tokens were cached."""
    messages = [
        {"role": ("user", "assistant")[place % 2], "content": text}
        for place, text in enumerate(said)
    ]
    body = {"model": "test-model", "messages": messages, "temperature": 0, "max_tokens": 12}
    made = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    cached = made["usage"]["prompt_tokens_details"]["cached_tokens"]
    return made["choices"][0]["message"]["content"], cached


def wait_for_files(folder: Path, count: int) -> list[Path]:
    deadline = time.monotonic() + 60
    while len(files := sorted(folder.glob("kv/*/*/??/*.kv"))) < count:
        assert time.monotonic() < deadline, files
        time.sleep(0.01)
    return files


def test_a_replica_leaves_its_prefixes_to_the_next_one_killed_or_drained(
    spawn: Callable[..., Any], tiny_llama: Path, cache_dir: Path
) -> None:
    fields = {"source": str(tiny_llama), "precision": "fp32", "kv_spill": {"disk": "64MiB"}}
    first = spawn(**fields)
    first.wait_for("ready")
    with first.client() as client:
        answer, cached = turn(client, STORY)
        assert cached == 0
        files = wait_for_files(cache_dir, len(f"<user>{STORY}\n<assistant>") // 16)
        said = (STORY, answer, "And then?")
        expected, _ = turn(client, *said)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    second = spawn(**fields)
    second.wait_for("ready")
    with second.client() as client:
        assert turn(client, *said)[0] == expected
        found = second.metric("vllm:external_prefix_cache_hits_total")
        assert turn(client, *said)[1] >= found >= 16 * len(files) > 300
        labelled = client.get("/metrics").text
        assert f'tidegate_kv_spill_loaded_blocks_total{{tier="disk"}} {found / 16}' in labelled
        files = wait_for_files(cache_dir, len(files))
        turn(client, STORY[::-1])
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait() == 0
    assert len(wait_for_files(cache_dir, 0)) >= len(files) + len(STORY) // 16, "all was kept first"
