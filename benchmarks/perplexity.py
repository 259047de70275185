"""One protocol for everyone: windows of 512 tokens, each alone, the first token given.

No token is added in front of a window. Perplexity is exp of the mean negative log-likelihood over
the tokens 2 to 512 of all windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

WINDOW_TOKENS = 512
WINDOWS = 24

Logprobs = Callable[[list[int]], list[float]]
"""For a window of n tokens, n-1 natural log-probabilities: of each token but the first."""


def windows(tokens: Sequence[int], count: int = WINDOWS) -> list[list[int]]:
    """The first `count` whole windows. Raises ValueError when the text is too short for them."""
    if len(tokens) < count * WINDOW_TOKENS:
        raise ValueError(
            f"{count} windows need {count * WINDOW_TOKENS} tokens, the text has {len(tokens)}"
        )
    starts = range(0, count * WINDOW_TOKENS, WINDOW_TOKENS)
    return [list(tokens[start : start + WINDOW_TOKENS]) for start in starts]


def perplexity(logprobs: Logprobs, texts: Iterable[list[int]]) -> float:
    """Perplexity of a system over windows. Raises ValueError when it leaves a token out."""
    total, count = 0.0, 0
    for text in texts:
        found = logprobs(text)
        if len(found) != len(text) - 1:
            raise ValueError(f"{len(found)} log-probabilities for {len(text)} tokens")
        total -= math.fsum(found)
        count += len(found)
    return math.exp(total / count)
