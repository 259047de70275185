"""How long a second turn waits for its first token when the replica was restarted after the first.

A fresh engine with an empty cache stands for the restarted replica: loading is not measured.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.context.model import Model
from benchmarks.prose import prose
from benchmarks.rows import Row

from tidegate_runtime.engine.sequence import SamplingParams, SequenceRequest

HISTORY_TOKENS = 1500
NEXT_TOKENS = 20
_GREEDY = SamplingParams(temperature=0.0)


async def measure(
    artifact: Path, threads: int, times: int, say: Callable[[str], None]
) -> list[Row]:
    """Rows without and with a spill to disk."""
    rows = []
    for system in ("forgotten", "on disk"):
        waits: dict[str, list[float]] = {"first turn": [], "second turn": []}
        cached = 0
        for number in range(times):
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder) if system == "on disk" else None
                history, first = await _turn(Model(artifact, threads, root), number, [])
                _, second = await _turn(Model(artifact, threads, root), number, history)
            waits["first turn"].append(first.seconds)
            waits["second turn"].append(second.seconds)
            cached = second.cached
            say(f"{system}: {first.seconds:.3f} s, after a restart {second.seconds:.3f} s")
        for turn, seconds in waits.items():
            middle = round(median(seconds) * 1000, 1)
            rows.append(Row(system, turn, "first token", middle, "ms", "int4"))
        rows.append(Row(system, "second turn", "cached", cached, "tokens", "int4"))
    return rows


class _Waited(NamedTuple):
    """For the first token, and how many tokens of the prompt were there."""

    seconds: float
    cached: int


async def _turn(model: Model, number: int, history: list[int]) -> tuple[list[int], _Waited]:
    """Say something and stop the engine; what was said so far, and how long it took to begin."""
    text = model.tokens(prose()[number * 10_000 :][:10_000])
    prompt = [*history, *text[: NEXT_TOKENS if history else HISTORY_TOKENS]]
    await _first_token(model, model.tokens("Hello"), 1)
    answer, waited = await _first_token(model, prompt, NEXT_TOKENS)
    model.engine.stop("the turn is over")
    return [*prompt, *answer], waited


async def _first_token(model: Model, prompt: list[int], count: int) -> tuple[list[int], _Waited]:
    started, first, answer = time.perf_counter(), 0.0, []
    async with model.engine.generate([SequenceRequest(tuple(prompt), count, _GREEDY)]) as events:
        async for event in events:
            first = first or time.perf_counter() - started
            answer += [event.token] if event.token is not None else []
    return answer, _Waited(first, events.timelines[0].cached_tokens)
