"""The contract of a decoder: one ragged batch in, one row of logits per wanted token out."""

from __future__ import annotations

from typing import Protocol

from tidegate_runtime.engine.kv_budget import KvShape
from tidegate_runtime.ops.batch import BLOCK_TOKENS, Integers, StepBatch, StepLogits


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

    def forward(self, batch: StepBatch) -> StepLogits:
        """Run every row once."""


__all__ = ["BLOCK_TOKENS", "Decoder", "Integers", "StepBatch", "StepLogits"]
