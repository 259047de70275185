"""One step's input and output: a ragged batch of tokens, and rows of logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.engine.block_manager import BLOCK_TOKENS, blocks_for
from tidegate_runtime.ops.shares import SharesOf, TorchShares

Integers = np.ndarray[tuple[int, ...], np.dtype[np.int32]]


@dataclass(frozen=True)
class StepBatch:
    """One ragged batch. Its rows are consecutive tokens, sequence after sequence.

    All arrays are int32: `tokens` `[rows]`; `positions` `[rows]`, the place of each token in its
    sequence; `starts` `[sequences + 1]`, sequence i has the rows `starts[i]..starts[i + 1] - 1`;
    `tables` `[sequences, blocks]`, the ids of its blocks, padded with 0; `wanted` `[wanted]`, the
    rows whose logits are wanted. `adapters` says which adapter each sequence has, and is empty when
    none has one.
    """

    tokens: Integers
    positions: Integers
    starts: Integers
    tables: Integers
    wanted: Integers
    adapters: tuple[Adapter | None, ...] = ()

    @classmethod
    def of_prompt(cls, tokens: list[int]) -> StepBatch:
        """One prompt from its first token in the blocks 0.., with the logits of every row."""
        rows = np.arange(len(tokens), dtype=np.int32)
        return cls(
            tokens=np.array(tokens, dtype=np.int32),
            positions=rows,
            starts=np.array([0, len(tokens)], dtype=np.int32),
            tables=np.arange(blocks_for(len(tokens)), dtype=np.int32).reshape(1, -1),
            wanted=rows,
        )


@dataclass(frozen=True)
class StepLogits:
    """`logits` `[wanted, vocabulary]` in float32, valid until the next forward.

    `best[i]` is the argmax of row i, the first of equals; `finite[i]` is False when the maximum of
    row i is NaN or infinite. `shares` makes the softmax of some rows, where it is fastest. `hidden`
    `[wanted, hidden]` is what the last layer left, before the final norm; only of a decoder that is
    watched (`models.base.LayeredDecoder`).
    """

    logits: torch.Tensor
    best: list[int]
    finite: list[bool]
    shares: SharesOf = TorchShares
    hidden: torch.Tensor | None = None

    @classmethod
    def of(cls, logits: torch.Tensor, hidden: torch.Tensor | None = None) -> StepLogits:
        """With the maxima found by torch."""
        values, tokens = logits.max(dim=-1)
        finite = torch.isfinite(values) & ~torch.isnan(logits).any(dim=-1)
        # Together they leave a device in one transfer.
        best, flags = torch.stack((tokens, finite.long())).tolist()
        return cls(logits, best, [flag == 1 for flag in flags], hidden=hidden)


__all__ = ["BLOCK_TOKENS", "Integers", "StepBatch", "StepLogits"]
