"""The decoder that the engine sees when its model is divided: rank 0's, which the others follow."""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable
from tidegate_runtime.models.base import LayeredDecoder, StepBatch, StepLogits
from tidegate_runtime.ops.low_rank import LowRank
from tidegate_runtime.ops.packed import PackedLinear
from tidegate_runtime.parallel.adapters import handed_over
from tidegate_runtime.parallel.orders import (
    AdaptedBatch,
    Allocate,
    DropAdapter,
    Embed,
    Refused,
    Shallow,
    TakeAdapter,
    Taken,
    Unavailable,
)


class Followers(Protocol):
    """The other ranks."""

    size: int
    """Of all ranks, rank 0 included."""

    def tell(self, order: object) -> None:
        """Give every one of them an order. Raises EngineDead when one is gone."""

    def ask(self, order: object) -> list[object]:
        """What each of them answers to an order. Blocks; raises EngineDead when one is gone."""


@dataclass(frozen=True, eq=False)
class DividedAdapter(Adapter):
    """An adapter of which every rank has a part: rank 0's, and the number of the others'."""

    own: Adapter
    number: int


class DividedDecoder:
    """See `models.base.LayeredDecoder`. `kv` is what all ranks keep of a token together.

    Hidden states are whole on every rank. All ranks run what leads to them, and rank 0 looks.
    """

    def __init__(self, own: LayeredDecoder, followers: Followers, vocabulary_size: int) -> None:
        self.vocabulary_size = vocabulary_size
        self.hidden_size = own.hidden_size
        self.layers = own.layers
        self.kv = replace(own.kv, kv_heads=own.kv.kv_heads * followers.size)
        self._own = own
        self._followers = followers
        self._numbers = itertools.count()
        self._dropped: deque[int] = deque()

    def allocate(self, blocks: int) -> None:
        """Make the pools of all ranks."""
        self._followers.tell(Allocate(blocks))
        self._own.allocate(blocks)

    def forward(self, batch: StepBatch) -> StepLogits:
        """Run every row once, on all ranks. Raises EngineDead when one is gone."""
        told, own = self._as_told(batch)
        self._followers.tell(told)
        return self._own.forward(own)

    def watch(self) -> None:
        """From now on `forward` gives the hidden states after the last layer, too.

        Raises ModelRefused (UnsupportedSpeculation) for a model without a list of layers.
        """
        self._own.watch()

    def hidden(self, batch: StepBatch, layers: int) -> torch.Tensor:
        """Run the first `layers` layers, on all ranks. Raises EngineDead when one is gone."""
        told, own = self._as_told(batch)
        self._followers.tell(Shallow(told, layers, logits=False))
        return self._own.hidden(own, layers)

    def early(self, batch: StepBatch, layers: int) -> StepLogits:
        """Run the first `layers` layers, the final norm and the head, as `hidden` does."""
        told, own = self._as_told(batch)
        self._followers.tell(Shallow(told, layers, logits=True))
        return self._own.early(own, layers)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """The embeddings of tokens, of which each rank has some. Raises EngineDead."""
        self._followers.tell(Embed(tokens.cpu().int().numpy()))
        return self._own.embed(tokens)

    def linear(self, packed: PackedLinear) -> torch.nn.Module:
        """A linear that rank 0 has alone, and whole."""
        return self._own.linear(packed)

    def pool_tensors(self) -> list[torch.Tensor]:
        """Raises ModelRefused: each rank has blocks of its own."""
        raise self._refused("UnsupportedSpill", "kv_spill", "spills no prefixes")

    def adaptable(self) -> Mapping[str, tuple[int, int]]:
        """See `models.base.Decoder`."""
        return self._own.adaptable()

    def adapt(self, adapter_id: str, updates: Mapping[str, LowRank]) -> Adapter:
        """An adapter of which every rank has its part; `weights_bytes` are those of all ranks.

        Raises ModelRefused and ReplicaUnavailable when a rank cannot take its part, which no rank
        has then, and EngineDead when one is gone.
        """
        self._tell_dropped()
        own = self._own.adapt(adapter_id, updates)
        number = next(self._numbers)
        with handed_over(updates) as file:
            answers = self._followers.ask(TakeAdapter(number, adapter_id, file))
        for answer in answers:
            if isinstance(answer, Refused | Unavailable):
                self._followers.tell(DropAdapter(number))
                refused = ModelRefused if isinstance(answer, Refused) else ReplicaUnavailable
                raise refused(answer.reason, answer.message)
        taken = sum(answer.weights_bytes for answer in answers if isinstance(answer, Taken))
        adapter = DividedAdapter(adapter_id, own.weights_bytes + taken, own, number)
        # This may run in the midst of anything, also of telling: it only takes a note.
        weakref.finalize(adapter, self._dropped.append, number).atexit = False
        return adapter

    def _as_told(self, batch: StepBatch) -> tuple[StepBatch | AdaptedBatch, StepBatch]:
        """A batch as the other ranks are told of it, and as this one runs it."""
        self._tell_dropped()
        if not batch.adapters:
            return batch, batch
        parts = [each if isinstance(each, DividedAdapter) else None for each in batch.adapters]
        numbers = tuple(None if part is None else part.number for part in parts)
        own = tuple(None if part is None else part.own for part in parts)
        told = AdaptedBatch(replace(batch, adapters=()), numbers)
        return told, replace(batch, adapters=own)

    def _tell_dropped(self) -> None:
        """Let the other ranks forget what no sequence and no name refers to any more."""
        while self._dropped:
            try:
                number = self._dropped.popleft()
            except IndexError:  # another thread has told of it
                return
            self._followers.tell(DropAdapter(number))

    def _refused(self, reason: str, field: str, what: str) -> ModelRefused:
        return ModelRefused(
            reason,
            f"{field}: a model that is divided over {self._followers.size} processes {what}; "
            "remove it, or set tensor_parallel to 1",
        )
