"""The contract of a decoder: one ragged batch in, one row of logits per wanted token out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch

from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.engine.kv_budget import KvShape
from tidegate_runtime.ops.batch import BLOCK_TOKENS, Integers, StepBatch, StepLogits
from tidegate_runtime.ops.low_rank import LowRank
from tidegate_runtime.ops.packed import PackedLinear


class Decoder(Protocol):
    """The weights of one model on one device, and its pool of key/value blocks of 16 tokens.

    A row at position p of sequence i writes its key and value to slot `p % 16` of block
    `tables[i][p // 16]`, then attends to the positions 0..p of its own sequence. Decode, prefill
    chunk, prefix hit and speculation are all this one case.
    """

    vocabulary_size: int
    kv: KvShape

    def allocate(self, blocks: int) -> None:
        """Make the pool: block ids 0..`blocks` - 1."""

    def pool_tensors(self) -> list[torch.Tensor]:
        """The pool's own memory: tensors `[blocks, …]` that together are all that a block is."""

    def forward(self, batch: StepBatch) -> StepLogits:
        """Run every row once."""

    def adaptable(self) -> Mapping[str, tuple[int, int]]:
        """The (outputs, inputs) of every linear that an adapter may change, by module name."""

    def adapt(self, adapter_id: str, updates: Mapping[str, LowRank]) -> Adapter:
        """An adapter for the batches of this decoder, from its updates by module name.

        Safe to call from any thread.
        """


@runtime_checkable
class LayeredDecoder(Decoder, Protocol):
    """A decoder that can be looked into, which is what self-speculation needs.

    A hidden state is what a layer leaves in the residual stream, before any norm. A run that stops
    early writes the keys and values of the layers it ran, the same that a whole run would write.
    """

    hidden_size: int
    layers: int

    def watch(self) -> None:
        """From now on `forward` gives the hidden states after the last layer, too."""

    def hidden(self, batch: StepBatch, layers: int) -> torch.Tensor:
        """Run the first `layers` layers: the hidden states `[wanted, hidden]`."""

    def early(self, batch: StepBatch, layers: int) -> StepLogits:
        """Run the first `layers` layers, then the final norm and the head, as if there were no
        others.
        """

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """The model's own embeddings of tokens `[rows]`, where the model is: `[rows, hidden]`, but
        for a factor that it may scale all of them by.
        """

    def linear(self, packed: PackedLinear) -> torch.nn.Module:
        """A linear beside the model's own: `[…, in]` → `[…, out]` where the model is."""


__all__ = ["BLOCK_TOKENS", "Decoder", "Integers", "LayeredDecoder", "StepBatch", "StepLogits"]
