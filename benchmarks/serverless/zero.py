"""Zero to first token: a chat is sent while no replica runs, and the first text is waited for.

Beside it, what starting a peer's process for each request would take: from starting its program to
its first token, with the model already in the page cache. Turns alternate.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping

from benchmarks.process import Command, Process
from benchmarks.rows import Row
from benchmarks.serverless.percentiles import percentiles
from benchmarks.serverless.platform import MODEL, Platform

WORKLOAD = "zero_to_first_token"
PROMPT = "What is the capital of France?"
PEER_STARTS = 5
SLOW_START_S = 30.0
"""A peer that needs longer is started once only."""


def measure(
    platform: Platform,
    precision: str,
    peers: Mapping[str, tuple[str, Command]],
    times: int,
    say: Callable[[str], None],
) -> list[Row]:
    """`times` cold starts of ours, and between them some of each peer's (precision, command)."""
    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in peers}
    every = max(1, times // PEER_STARTS)
    for turn in range(times):
        platform.rest()
        ours.append(first_token_s(platform))
        if turn % every:
            continue
        say(f"zero to first token: {turn + 1} of {times}, {ours[-1]:.3f} s")
        for name, (_, command) in peers.items():
            if not theirs[name] or theirs[name][0] < SLOW_START_S:
                theirs[name].append(start_s(command))
    rows = percentiles("tidegate", WORKLOAD, ours, precision)
    for name, (its_precision, _) in peers.items():
        rows += percentiles(name, WORKLOAD, theirs[name], its_precision)
    return rows


def first_token_s(platform: Platform) -> float:
    """Seconds from sending a streamed chat to the first piece of text."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "stream": True,
        "max_tokens": 4,
        "temperature": 0,
    }
    began = time.perf_counter()
    took = None
    with platform.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            if took is None and _brings_text(line):
                took = time.perf_counter() - began
    if took is None:
        raise RuntimeError("a stream ended without any text")
    return took


def start_s(command: Command) -> float:
    """Seconds from starting a peer's process to its first token."""
    process = Process(command)
    process.close()
    return process.ready_s


def _brings_text(line: str) -> bool:
    if not line.startswith("data: {"):
        return False
    chunk = json.loads(line.removeprefix("data: "))
    if "error" in chunk:
        raise RuntimeError(f"a stream failed: {chunk['error']}")
    return any(bool(choice["delta"].get("content")) for choice in chunk["choices"])
