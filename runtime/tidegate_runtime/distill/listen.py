"""Listening to a model: prompts cut from a text, and what it said after each, kept in a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tidegate_runtime.distill.traces import PROMPT_TOKENS, SAID_TOKENS, STREAMS, Tracer, Traces
from tidegate_runtime.distill.workplace import Workplace
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import Integers

_HELD_OUT = 8
"""One shard in so many is not learnt from."""


@dataclass(frozen=True)
class Heard:
    """Continuations to learn from, and others to judge by; their prompts do not overlap."""

    learnt: Traces
    held_out: Traces


def prompts_of(text: Sequence[int], places: int, seed: int) -> Integers:
    """Whole shards of prompts `[n, PROMPT_TOKENS]` for about so many places, from all over a text,
    shuffled; fewer when the text is short.

    Raises ModelRefused (TextTooShort) when it has not two shards of them.
    """
    pieces = len(text) // PROMPT_TOKENS
    shards = min(-(-places // (SAID_TOKENS * STREAMS)), pieces // STREAMS)
    if pieces < 2 * STREAMS:
        raise ModelRefused(
            "TextTooShort",
            f"the text has {len(text)} tokens, and {2 * STREAMS * PROMPT_TOKENS} are needed; use a "
            "longer one",
        )
    count = max(2, shards) * STREAMS
    chosen = np.linspace(0, pieces - 1, count).astype(np.int64)
    np.random.default_rng(seed).shuffle(chosen)
    tokens = np.array(text[: pieces * PROMPT_TOKENS], dtype=np.int32)
    return np.ascontiguousarray(tokens.reshape(pieces, PROMPT_TOKENS)[chosen])


def listen(
    tracer: Tracer, prompts: Integers, work: Workplace, tell: Callable[[int, int], None]
) -> Heard:
    """Let the model continue every prompt, except for those it has continued before.

    `tell` is told how many shards are done, of how many.
    """
    shards = len(prompts) // STREAMS
    for shard in range(shards):
        path = work.traces(shard)
        if not path.exists():
            rows = slice(shard * STREAMS, (shard + 1) * STREAMS)
            tracer.trace(prompts[rows], seed=shard).save(path)
        tell(shard + 1, shards)
    loaded = [Traces.load(work.traces(shard)) for shard in range(shards)]
    held_out = max(1, shards // _HELD_OUT)
    return Heard(Traces.joined(loaded[held_out:]), Traces.joined(loaded[:held_out]))
