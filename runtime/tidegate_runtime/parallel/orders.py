"""What rank 0 tells the other ranks of a replica, and what they answer.

They are processes of one machine, rank 0 their parent, and `multiprocessing.connection` carries
these objects. An `Open` is answered with `Opened` or `Refused`; after it come an `Allocate`, then
the `StepBatch` of every step, or its `AdaptedBatch`, a `Shallow` or an `Embed` for each guess of
the next tokens, and at last an `End`. Nothing of that is answered: the ranks meet in the sums of
each layer. A `TakeAdapter` may come at any time after the `Open`. It is answered, with `Taken` or
why not, while steps go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # ranks are forked before torch is imported
    from tidegate_runtime.ops.batch import Integers, StepBatch


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
class TakeAdapter:
    """Take your part of an adapter from a file of its updates, which lies there until you answer.

    Batches call it by `number`, which no other adapter ever has: the same weights that are loaded
    once more have another, so that dropping the first leaves the second.
    """

    number: int
    adapter_id: str
    updates: Path


@dataclass(frozen=True)
class DropAdapter:
    """Forget an adapter, if you have it: no batch will call it any more."""

    number: int


@dataclass(frozen=True)
class AdaptedBatch:
    """A step of which some sequences have adapters: their numbers, None for a sequence without."""

    batch: StepBatch
    numbers: tuple[int | None, ...]


@dataclass(frozen=True)
class Shallow:
    """Run the first layers over a batch, and the head after them if there are to be logits."""

    step: StepBatch | AdaptedBatch
    layers: int
    logits: bool


@dataclass(frozen=True)
class Embed:
    """Embed tokens `[rows]`."""

    tokens: Integers


@dataclass(frozen=True)
class End:
    """The replica ends."""


@dataclass(frozen=True)
class Opened:
    """This rank has its part."""


@dataclass(frozen=True)
class Taken:
    """This rank has its part of the adapter, which takes so much of its memory."""

    weights_bytes: int


@dataclass(frozen=True)
class Refused:
    """This rank cannot take its part: a ModelRefused."""

    reason: str
    message: str


@dataclass(frozen=True)
class Unavailable:
    """This rank cannot take its part now: a ReplicaUnavailable."""

    reason: str
    message: str
