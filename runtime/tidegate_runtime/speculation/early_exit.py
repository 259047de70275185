"""Guesses from the model's own first layers: it drafts shallow and checks deep.

Draft & Verify (Zhang et al. 2023) and LayerSkip (Elhoushi et al. 2024). The drafts' keys and values
of the first layers go to the slots that the check will write, and the check, which runs all layers,
writes the same values there again: so there is no second cache, and nothing to take back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tidegate_runtime.engine.block_manager import BLOCK_TOKENS, BlockManager
from tidegate_runtime.engine.model_runner import Slice, ragged_batch
from tidegate_runtime.engine.sequence import Sequence
from tidegate_runtime.models.base import StepBatch
from tidegate_runtime.speculation.base import MAX_DRAFTS, Reach

Guess = Callable[[StepBatch], list[int]]
"""Run the first layers over a batch: the next token of each wanted row."""


class EarlyExitProposer:
    """The greedy continuation by the first layers, a row a sequence and guess.

    Drafts lie in the sequences' own blocks of `blocks`. A draft takes a new block only while more
    than `spare_blocks` are free, so that no sequence is ever preempted for a guess.
    """

    at_once = False

    def __init__(
        self,
        guess: Guess,
        blocks: BlockManager,
        *,
        spare_blocks: int,
        max_tokens: int = MAX_DRAFTS,
    ) -> None:
        self._guess = guess
        self._blocks = blocks
        self._spare_blocks = spare_blocks
        self._max_tokens = max_tokens

    def reach(self, sequence: Sequence) -> Reach:
        """All but the last guess have their keys and values in a slot, as the last token has."""
        if self._blocks.free_blocks > self._spare_blocks:
            return Reach(self._max_tokens)
        held = sequence.blocks.length * BLOCK_TOKENS - sequence.length + 1
        return Reach(max(0, min(held, self._max_tokens)))

    def propose(self, wanted: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
        drafts: dict[Sequence, list[int]] = {
            sequence: []
            for sequence, count in wanted.items()
            if self._blocks.grow(sequence.blocks, sequence.length + count - 1)
        }
        for level in range(max(wanted.values())):
            deeper = [sequence for sequence in drafts if wanted[sequence] > level]
            if not deeper:
                break
            slices = []
            for sequence in deeper:
                # The guess stands where the engine will put it; nobody else looks there.
                sequence.guess(drafts[sequence])
                place = sequence.length + level - 1
                tokens = sequence.buffer[place : place + 1]
                slices.append(Slice(tokens, place, sequence.blocks, 1))
            batch = ragged_batch(slices)
            if any(sequence.request.adapter is not None for sequence in deeper):
                batch = replace(batch, adapters=tuple(each.request.adapter for each in deeper))
            for sequence, token in zip(deeper, self._guess(batch), strict=True):
                drafts[sequence].append(token)
        return drafts

    def forget(self, sequence: Sequence) -> None:
        """Nothing is kept of it."""
