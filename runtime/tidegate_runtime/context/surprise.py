"""How surprising the served model finds each token of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.sequence import SamplingParams, SequenceRequest

WINDOW_TOKENS = 512
_SCORED = SamplingParams(temperature=0.0, logprobs=0)


async def surprise(
    engine: Engine, pieces: Sequence[Sequence[int]], like: SequenceRequest, window_tokens: int
) -> list[float]:
    """Nats a token of each piece, given those before it (Li et al. 2023, "Compressing Context to
    Enhance Inference Efficiency of Large Language Models", where this is self-information).

    `like` says whose request it is. The pieces run in windows of at most `window_tokens`, which
    begin with a piece where that is possible; the first token of a window is taken for as
    surprising as the others are on average. Raises what `Engine.generate` raises.
    """
    windows = _windows(pieces, window_tokens)
    requests = [
        replace(like, prompt=tuple(window), sampling=_SCORED, index=index)
        for index, window in enumerate(windows)
    ]
    found: list[list[float]] = [[] for _ in windows]
    async with engine.generate(requests) as events:
        async for event in events:
            found[event.index] = [-one.logprob for one in event.prompt_logprobs]
    tokens = [value for nats in found for value in (fmean(nats) if nats else 0.0, *nats)]
    means, start = [], 0
    for piece in pieces:
        means.append(fmean(tokens[start : start + len(piece)]) if piece else 0.0)
        start += len(piece)
    return means


def _windows(pieces: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """All tokens in order, cut where a piece begins; one that is longer than a window is cut."""
    windows: list[list[int]] = [[]]
    for piece in pieces:
        if len(windows[-1]) + len(piece) > most and windows[-1]:
            windows.append([])
        for token in piece:
            if len(windows[-1]) == most:
                windows.append([])
            windows[-1].append(token)
    return [window for window in windows if window]
