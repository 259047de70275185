"""The decoder that the engine sees when its model is divided: rank 0's, which the others follow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import torch

from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import Decoder, StepBatch, StepLogits
from tidegate_runtime.ops.low_rank import LowRank
from tidegate_runtime.parallel.orders import Allocate


class Followers(Protocol):
    """The other ranks."""

    size: int
    """Of all ranks, rank 0 included."""

    def tell(self, order: object) -> None:
        """Give every one of them an order. Raises EngineDead when one is gone."""


class DividedDecoder:
    """See `models.base.Decoder`. `kv` is what all ranks keep of a token together."""

    def __init__(self, own: Decoder, followers: Followers, vocabulary_size: int) -> None:
        self.vocabulary_size = vocabulary_size
        self.kv = dataclasses.replace(own.kv, kv_heads=own.kv.kv_heads * followers.size)
        self._own = own
        self._followers = followers

    def allocate(self, blocks: int) -> None:
        """Make the pools of all ranks."""
        self._followers.tell(Allocate(blocks))
        self._own.allocate(blocks)

    def forward(self, batch: StepBatch) -> StepLogits:
        """Run every row once, on all ranks. Raises EngineDead when one is gone."""
        self._followers.tell(batch)
        return self._own.forward(batch)

    def pool_tensors(self) -> list[torch.Tensor]:
        """Raises ModelRefused: each rank has blocks of its own."""
        raise self._refused("UnsupportedSpill", "kv_spill", "spills no prefixes")

    def adaptable(self) -> Mapping[str, tuple[int, int]]:
        """Raises ModelRefused: an adapter would have to be divided as its model is."""
        raise self._refused("UnsupportedAdapter", "adapters", "takes no adapters")

    def adapt(self, adapter_id: str, updates: Mapping[str, LowRank]) -> Adapter:
        """Raises ModelRefused, as `adaptable` does."""
        del adapter_id, updates
        raise self._refused("UnsupportedAdapter", "adapters", "takes no adapters")

    def _refused(self, reason: str, field: str, what: str) -> ModelRefused:
        return ModelRefused(
            reason,
            f"{field}: a model that is divided over {self._followers.size} processes {what}; "
            "remove it, or set tensor_parallel to 1",
        )
