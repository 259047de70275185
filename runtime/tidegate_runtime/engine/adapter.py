"""What the engine knows of an adapter: which one it is. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Adapter:
    """Weights that change a model for some of its sequences, held as its decoder wants them.

    `id` is a digest of the weights, so equal ids give equal keys and values. The weights stay in
    memory as long as a sequence refers to them.
    """

    id: str
    weights_bytes: int
