"""From a schedule to one ragged batch, and from its logits back to the sequences."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.engine.block_manager import BlockTable
from tidegate_runtime.engine.sequence import Sequence, Tokens
from tidegate_runtime.models.base import Decoder, Integers, StepBatch, StepLogits


class Slice(NamedTuple):
    """Consecutive tokens of one sequence, from position `start` on; the last `wanted` give logits.

    `table` holds blocks for all positions up to the last of these tokens.
    """

    tokens: Tokens
    start: int
    table: BlockTable
    wanted: int


class LogitRows(NamedTuple):
    """Rows `first`..`first + rows - 1` of a step's logits are those of a sequence's last rows."""

    sequence: Sequence
    first: int
    rows: int


@dataclass(frozen=True)
class StepResult:
    """What a step gave: the logits, and their rows for every sequence that has some."""

    logits: StepLogits
    rows: list[LogitRows]


class ModelRunner:
    """Runs sequences through a decoder whose pool of blocks is allocated."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def forward(self, work: dict[Sequence, int]) -> StepResult:
        """Run the next `work[sequence]` tokens of every sequence, its drafts included."""
        slices: list[Slice] = []
        adapters: dict[int, Adapter] = {}
        for sequence, count in work.items():
            if (adapter := sequence.request.adapter) is not None:
                adapters[len(slices)] = adapter
            start = sequence.computed_tokens
            tokens = sequence.buffer[start : start + count]
            slices.append(Slice(tokens, start, sequence.blocks, _wanted_rows(sequence, count)))
        batch = ragged_batch(slices)
        if adapters:
            batch = replace(batch, adapters=tuple(map(adapters.get, range(len(slices)))))
        logits = self._decoder.forward(batch)
        rows, first = [], 0
        for sequence, part in zip(work, slices, strict=True):
            if part.wanted:
                rows.append(LogitRows(sequence, first, part.wanted))
                first += part.wanted
        return StepResult(logits, rows)


def ragged_batch(slices: Many[Slice]) -> StepBatch:
    """The rows of all slices, one after another."""
    counts = [len(part.tokens) for part in slices]
    starts = np.zeros(len(slices) + 1, dtype=np.int32)
    np.cumsum(counts, out=starts[1:])
    tokens = np.concatenate([part.tokens for part in slices])
    shift = np.array([part.start for part in slices], dtype=np.int32) - starts[:-1]
    positions = np.arange(len(tokens), dtype=np.int32)
    positions += shift if len(slices) == len(tokens) else np.repeat(shift, counts)
    tables = np.zeros((len(slices), max(part.table.length for part in slices)), dtype=np.int32)
    for row, part in enumerate(slices):
        tables[row, : part.table.length] = part.table.ids[: part.table.length]
    return StepBatch(tokens, positions, starts, tables, _wanted(slices, starts))


def _wanted(slices: Many[Slice], starts: Integers) -> Integers:
    """The last `wanted` rows of every slice."""
    wanted = np.array([part.wanted for part in slices], dtype=np.int32)
    ends = np.cumsum(wanted, dtype=np.int32)
    total = int(ends[-1])
    return np.repeat(starts[1:] - ends, wanted) + np.arange(total, dtype=np.int32)


def _wanted_rows(sequence: Sequence, count: int) -> int:
    """How many of the last rows of this step need logits."""
    if sequence.request.prompt_logprobs and sequence.computed_tokens < len(sequence.request.prompt):
        return count
    return 1 + sequence.drafts if count >= sequence.pending_tokens else 0
