"""What rank 0 tells the other ranks of a replica, and what they answer.

They are processes of one machine, rank 0 their parent, and `multiprocessing.connection` carries
these objects. An `Open` is answered with `Opened` or `Refused`; after it come an `Allocate`, then
the `StepBatch` of every step and at last an `End`, and nothing is answered: the ranks meet in the
sums of each layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Whole:
    """The model that is divided, and how every rank runs its part; see `models.open`."""

    artifact_dir: Path
    threads: int
    kv: str
    context_tokens: int
    kind: str | None


@dataclass(frozen=True)
class Open:
    """Meet the other ranks at a file, and take your part of a model."""

    whole: Whole
    rank: int
    ranks: int
    rendezvous: Path


@dataclass(frozen=True)
class Allocate:
    """Make the pool of keys and values."""

    blocks: int


@dataclass(frozen=True)
class End:
    """The replica ends."""


@dataclass(frozen=True)
class Opened:
    """This rank has its part."""


@dataclass(frozen=True)
class Refused:
    """This rank cannot take its part: a ModelRefused."""

    reason: str
    message: str
