"""One forward per step over a ragged batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tidegate_runtime.engine.block_manager import BLOCK_TOKENS
from tidegate_runtime.engine.kv_budget import KvShape
from tidegate_runtime.engine.sequence import Sequence
from tidegate_runtime.ops.paged_attention import PagedBatch, PrefillChunk


@dataclass(frozen=True)
class StepLogits:
    """Logits `[rows, vocabulary]` in float32, and the rows of each sequence.

    A sequence that ends its pending tokens in this step has its last row here; one that wants the
    log probabilities of its prompt has a row for every token it ran.
    """

    logits: torch.Tensor
    rows: dict[Sequence, range]


class ModelRunner:
    """Owns the model and the cache pools. `total_blocks` blocks plus one null block of zeros."""

    def __init__(self, model: Any, shape: KvShape, total_blocks: int) -> None:
        self._model = model
        self._device = model.device
        self._null_block = total_blocks
        slots = (total_blocks + 1) * BLOCK_TOKENS
        # Empty, so that memory is taken only as it is used: a slot is written before it is read.
        options = {"dtype": model.dtype, "device": self._device}
        heads = shape.kv_heads
        self._keys = [
            torch.empty(slots, heads, shape.key_dim, **options) for _ in range(shape.layers)
        ]
        self._values = [
            torch.empty(slots, heads, shape.value_dim, **options) for _ in range(shape.layers)
        ]
        for pool in (*self._keys, *self._values):
            pool[total_blocks * BLOCK_TOKENS :] = 0.0

    @torch.inference_mode()
    def forward(self, work: dict[Sequence, int]) -> StepLogits:
        """Run the next `work[sequence]` pending tokens of every sequence."""
        decodes = [sequence for sequence in work if _decodes(sequence, work[sequence])]
        prefills = [sequence for sequence in work if not _decodes(sequence, work[sequence])]
        ordered = decodes + prefills
        tokens: list[int] = []
        positions: list[int] = []
        chunks: list[tuple[Sequence, range]] = []
        wanted: list[int] = []
        rows: dict[Sequence, range] = {}
        for sequence in ordered:
            start, count = sequence.computed_tokens, work[sequence]
            first_row = len(tokens)
            tokens.extend(sequence.tokens[start : start + count])
            positions.extend(range(start, start + count))
            chunks.append((sequence, range(first_row, first_row + count)))
            kept = _kept_rows(sequence, count)
            if kept:
                rows[sequence] = range(len(wanted), len(wanted) + kept)
                wanted.extend(range(first_row + count - kept, first_row + count))
        if not wanted:
            # A lone chunk of a long prompt: the model still wants one row to project.
            wanted = [len(tokens) - 1]
        output = self._model(
            input_ids=self._integers([tokens]),
            position_ids=self._integers([positions]),
            use_cache=False,
            logits_to_keep=self._integers(wanted),
            paged=self._batch(decodes, chunks[len(decodes) :], ordered, work),
        )
        return StepLogits(output.logits[0].float(), rows)

    def _batch(
        self,
        decodes: list[Sequence],
        prefills: list[tuple[Sequence, range]],
        ordered: list[Sequence],
        work: dict[Sequence, int],
    ) -> PagedBatch:
        ends = {sequence: sequence.computed_tokens + work[sequence] for sequence in ordered}
        decode_slots, decode_mask = self._decode_slots(decodes)
        writes = []
        if decodes:
            lengths = self._integers([ends[sequence] for sequence in decodes])
            writes.append(decode_slots.gather(1, (lengths - 1).unsqueeze(1)).flatten())
        chunks = []
        for sequence, rows in prefills:
            slots = self._slots(sequence, ends[sequence])
            writes.append(slots[sequence.computed_tokens :])
            mask = None
            if sequence.computed_tokens > 0:
                mask = torch.ones(len(rows), len(slots), dtype=torch.bool, device=self._device)
                mask = mask.tril(sequence.computed_tokens)
            chunks.append(PrefillChunk(rows.start, rows.stop, slots, mask))
        return PagedBatch(
            keys=self._keys,
            values=self._values,
            write_slots=torch.cat(writes),
            decode_slots=decode_slots,
            decode_mask=decode_mask,
            prefills=tuple(chunks),
        )

    def _decode_slots(self, decodes: list[Sequence]) -> tuple[torch.Tensor, torch.Tensor]:
        """Slots `[decodes, context]` padded with the null slot, and where they are real."""
        longest = max((len(sequence.tokens) for sequence in decodes), default=0)
        width = -(-longest // BLOCK_TOKENS)
        table = [(sequence.blocks + [self._null_block] * width)[:width] for sequence in decodes]
        blocks = self._integers(table).view(len(decodes), width, 1)
        inside = torch.arange(BLOCK_TOKENS, device=self._device)
        slots = (blocks * BLOCK_TOKENS + inside).flatten(1)[:, :longest]
        lengths = self._integers([len(sequence.tokens) for sequence in decodes]).unsqueeze(1)
        real = torch.arange(longest, device=self._device) < lengths
        slots = torch.where(real, slots, self._null_block * BLOCK_TOKENS)
        return slots, real.view(len(decodes), 1, 1, longest)

    def _slots(self, sequence: Sequence, tokens: int) -> torch.Tensor:
        """The slots `[tokens]` of a sequence's first tokens."""
        blocks = self._integers(sequence.blocks).unsqueeze(1)
        inside = torch.arange(BLOCK_TOKENS, device=self._device)
        return (blocks * BLOCK_TOKENS + inside).flatten()[:tokens]

    def _integers(self, values: list[Any]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)


def _decodes(sequence: Sequence, count: int) -> bool:
    """Whether this is one token at the end of a sequence that has a context already."""
    return count == 1 and sequence.pending_tokens == 1 and sequence.computed_tokens > 0


def _kept_rows(sequence: Sequence, count: int) -> int:
    """How many of the last rows of this step need logits."""
    in_prompt = sequence.computed_tokens < len(sequence.request.prompt)
    if sequence.request.prompt_logprobs and in_prompt:
        return count
    return 1 if count == sequence.pending_tokens else 0
