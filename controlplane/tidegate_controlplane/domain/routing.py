"""Which replica answers, and how much work a request is expected to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BYTES_PER_TOKEN = 4
"""A rule of thumb, used only where nobody counted."""
FIRST_MEAN_TOKENS = 256.0
"""Of an answer, before there was one."""
LEARNING_RATE = 0.05


@dataclass(frozen=True)
class Candidate:
    """A replica with room: its work, the number of requests it runs at once, what it has cached."""

    replica_id: str
    work_tokens: int
    """Prompt tokens not computed yet, and expected output tokens, of its requests in flight."""
    capacity: int
    saved_tokens: int = 0
    """Of the request's prompt, cached there."""

    @property
    def cost(self) -> float:
        """Work before the request is answered, up to a constant; by capacity, which shares it."""
        return (self.work_tokens - self.saved_tokens) / self.capacity


def choose(candidates: Sequence[Candidate]) -> str | None:
    """The id of the candidate with the least work left, None when there is none.

    A replica that has the prompt's beginning cached is chosen as long as that saves more than it
    has more to do. Equal costs go to the smaller id, so that few requests keep few replicas warm
    and the others can scale down.
    """
    if not candidates:
        return None
    return min(candidates, key=lambda c: (c.cost, c.replica_id)).replica_id


def slots(capacity: int) -> int:
    """Requests that a replica is sent at once.

    A quarter more than it runs, so that its engine never starves between two requests; beyond it
    they wait where they can still go elsewhere.
    """
    return capacity + max(1, capacity // 4)


@dataclass(frozen=True)
class OutputMean:
    """How long a deployment's answers are, as an exponential mean."""

    tokens: float = FIRST_MEAN_TOKENS

    def after(self, tokens: int) -> OutputMean:
        """The mean with one more answer."""
        return OutputMean(self.tokens + LEARNING_RATE * (tokens - self.tokens))

    def expected_tokens(self, most: int | None) -> int:
        """Of an answer that may have at most `most`."""
        mean = round(self.tokens)
        return mean if most is None else min(mean, most)


def expected_work(body_bytes: int, most: int | None) -> int:
    """The tokens that a request is expected to be, before its deployment's answers are known."""
    return max(1, body_bytes // BYTES_PER_TOKEN + OutputMean().expected_tokens(most))
