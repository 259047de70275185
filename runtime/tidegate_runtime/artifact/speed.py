"""How fast an artifact is on this machine: the engine itself, one stream, greedy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from tidegate_runtime.engine.block_manager import BlockManager, blocks_for
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.model_runner import ModelRunner
from tidegate_runtime.engine.scheduler import Scheduler
from tidegate_runtime.engine.sequence import SamplingParams, Sequence, SequenceRequest
from tidegate_runtime.engine.step import StepReport
from tidegate_runtime.models.base import Decoder

PROMPT_TOKENS = 512
NEW_TOKENS = 64
_TURNS = 3


class SpeedEntry(BaseModel):
    """The best of three turns, in tokens a second."""

    prompt_tokens: int
    prefill_tokens_per_s: float
    decode_tokens_per_s: float


class Unwatched:
    """Nobody wants to know of the steps."""

    def step(self, report: StepReport, waits: Mapping[float, int]) -> None:
        """Nothing."""

    def prefilled(self, sequence: Sequence) -> None:
        """Nothing."""

    def ended(self, sequence: Sequence) -> None:
        """Nothing."""


def measure_speed(decoder: Decoder, tokenizer: Any, *, context_tokens: int) -> SpeedEntry:
    """Prompts of 512 tokens and 64 new ones, or what the context allows. The decoder gets a pool
    for one sequence.
    """
    prompt_tokens = min(PROMPT_TOKENS, context_tokens // 2)
    new_tokens = min(NEW_TOKENS, context_tokens - prompt_tokens)
    blocks = blocks_for(prompt_tokens + new_tokens)
    decoder.allocate(blocks)
    engine = Engine(
        ModelRunner(decoder),
        Scheduler(BlockManager(blocks), max_sequences=1),
        tokenizer,
        eos_tokens=frozenset(),
        observer=Unwatched(),
    )
    engine.start()
    try:
        turns = asyncio.run(_turns(engine, decoder.vocabulary_size, prompt_tokens, new_tokens))
    finally:
        engine.stop("it has been measured")
    return SpeedEntry(
        prompt_tokens=prompt_tokens,
        prefill_tokens_per_s=max(prompt_tokens / first for first, _ in turns),
        decode_tokens_per_s=max((new_tokens - 1) / (last - first) for first, last in turns),
    )


async def _turns(
    engine: Engine, vocabulary: int, prompt_tokens: int, new_tokens: int
) -> list[tuple[float, float]]:
    """Seconds to the first and to the last token, after a turn that warms up."""
    found = []
    for turn in range(_TURNS + 1):
        # Every prompt is another one, so that none finds its prefix.
        prompt = tuple((turn + 7 * place) % vocabulary for place in range(prompt_tokens))
        greedy = SamplingParams(temperature=0)
        request = SequenceRequest(prompt, new_tokens, greedy, ignore_eos=True)
        began, times = time.perf_counter(), []
        async with engine.generate([request]) as outputs:
            async for _ in outputs:
                times.append(time.perf_counter() - began)  # noqa: PERF401
        found.append((times[0], times[-1]))
    return found[1:]
