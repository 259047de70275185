"""When one sequence reached what: the raw material of latency metrics and traces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Ending = Literal["stop", "length", "abort", "error"]


@dataclass(slots=True)
class Timeline:
    """Moments in seconds on the monotonic clock, None for not yet, and counts.

    `arrived_s` is when its request came to the process, `queued_s` when it came to the engine.
    `cached_tokens` of its prompt were found in the prefix cache when it started; `steps` are those
    of the engine from its first to its last. The engine's thread writes; whoever waits for the
    sequence may read once it has ended.
    """

    arrived_s: float = 0.0
    queued_s: float = 0.0
    started_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    ended_s: float | None = None
    ending: Ending | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    first_step: int = 0
    steps: int = 0
