"""Which layers stay in the device's memory. Pure arithmetic over sizes in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate_runtime.errors import ModelRefused

SLOTS = 2
"""Streamed layers in memory at once: one computes while the next is brought."""


@dataclass(frozen=True)
class Residency:
    """`streamed` are the layers that are brought at each step, in their order; none when all fit.

    `step_bytes` is what that takes: no step is faster than it divided by the bandwidth.
    """

    streamed: tuple[int, ...]
    step_bytes: int


def residency(layers: Sequence[int], beside: int, budget: int) -> Residency:
    """What to stream so that all weights take at most `budget` bytes of memory at once.

    `layers` is the size of each layer, `beside` that of what is no layer. As few as possible are
    streamed, always the same ones, since a cache that keeps the last used has none of them when its
    turn comes; and they lie apart, so that the layers between them hide their transfer. Raises
    ModelRefused (OffloadTooSmall).
    """
    if beside + sum(layers) <= budget:
        return Residency((), 0)
    slots = SLOTS * max(layers)
    for count in range(SLOTS, len(layers) + 1):
        chosen = tuple(int((i + 0.5) * len(layers) / count) for i in range(count))
        moved = sum(layers[i] for i in chosen)
        if beside + sum(layers) - moved + slots <= budget:
            return Residency(chosen, moved)
    raise ModelRefused(
        "OffloadTooSmall",
        f"offload_bytes {budget} is too little: {SLOTS} layers and what is no layer take "
        f"{beside + slots} bytes; raise it to that, or use a precision of fewer bits",
    )
