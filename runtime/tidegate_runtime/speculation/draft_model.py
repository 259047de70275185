"""Guesses from a smaller model of the same vocabulary, with a cache of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile

from tidegate_runtime.engine.block_manager import BlockManager, BlockTable, blocks_for
from tidegate_runtime.engine.model_runner import Slice, ragged_batch
from tidegate_runtime.engine.sequence import Sequence
from tidegate_runtime.models.base import Decoder
from tidegate_runtime.speculation.base import MAX_DRAFTS, Reach

CATCH_UP_TOKENS = 512


@dataclass(eq=False)
class _Shadow:
    """What the draft model has seen of a sequence: its first `computed` tokens are in `table`.

    `drafts` were proposed after the first `length` tokens; all but the last of them were run.
    It is `lost` once there was a token that the draft model does not know.
    """

    table: BlockTable
    computed: int = 0
    length: int = 0
    drafts: tuple[int, ...] = ()
    lost: bool = False

    def rewind(self, sequence: Sequence) -> None:
        """Forget the drafts that did not come true; their slots are written again."""
        right = 0
        for draft, token in zip(self.drafts, sequence.buffer[self.length :], strict=False):
            if self.length + right >= sequence.length or draft != token:
                break
            right += 1
        self.computed = min(self.computed, self.length + right, sequence.length - 1)
        self.drafts = ()


class DraftModelProposer:
    """The greedy continuation by a second decoder, whose pool holds the blocks of `blocks`.

    All sequences run in one batch: first what each has not seen yet, then a row for each further
    guess. A sequence that does not fit the pool, or is far behind, has no guess in this step; one
    that is longer than the draft model's context has none any more.

    The last layers of models of a family have the same tokens, and may be padded to different
    sizes: what is beyond the other's is no guess, and cannot be run.
    """

    at_once = False

    def __init__(
        self,
        decoder: Decoder,
        blocks: BlockManager,
        max_tokens: int = MAX_DRAFTS,
        *,
        context_tokens: int | None = None,
        vocabulary_size: int | None = None,
    ) -> None:
        """`context_tokens` is the decoder's context, None for one as long as the model's;
        `vocabulary_size` is that of the model, None for one as large as the decoder's.
        """
        self._context = context_tokens
        self._vocabulary = vocabulary_size
        self._max_tokens = max_tokens
        self._decoder = decoder
        self._blocks = blocks
        self._shadows: dict[Sequence, _Shadow] = {}

    def reach(self, sequence: Sequence) -> Reach:
        shadow = self._shadows.get(sequence)
        if shadow is not None and shadow.lost:
            return Reach(0)
        if self._context is None:
            return Reach(self._max_tokens)
        return Reach(max(0, min(self._max_tokens, self._context - sequence.length)))

    def propose(self, wanted: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
        ready = self._catch_up(wanted)
        drafts = {sequence: [token] for sequence, token in ready.items()}
        for level in range(1, max(wanted.values())):
            deeper = [sequence for sequence in drafts if wanted[sequence] > level]
            if not deeper:
                break
            slices = []
            for sequence in deeper:
                # The guess stands where the engine will put it; nobody else looks there.
                sequence.guess(drafts[sequence])
                place = sequence.length + level - 1
                table = self._shadows[sequence].table
                slices.append(Slice(sequence.buffer[place : place + 1], place, table, 1))
            best = self._decoder.forward(ragged_batch(slices)).best
            for sequence, token in zip(deeper, best, strict=True):
                drafts[sequence].append(token)
        for sequence, tokens in drafts.items():
            shadow = self._shadows[sequence]
            shadow.length, shadow.drafts = sequence.length, tuple(tokens)
            shadow.computed = sequence.length + len(tokens) - 1
        return {sequence: self._known(tokens) for sequence, tokens in drafts.items()}

    def forget(self, sequence: Sequence) -> None:
        if shadow := self._shadows.pop(sequence, None):
            self._blocks.release(shadow.table)

    def _catch_up(self, wanted: Mapping[Sequence, int]) -> dict[Sequence, int]:
        """Run what was not seen yet; the first guess of every sequence that is up to date."""
        slices: list[Slice] = []
        ready: list[Sequence] = []
        budget = CATCH_UP_TOKENS
        for sequence, count in wanted.items():
            shadow = self._shadow(sequence)
            shadow.rewind(sequence)
            if budget <= 0 or not self._blocks.grow(shadow.table, sequence.length + count):
                continue
            end = min(sequence.length, shadow.computed + budget)
            budget -= end - shadow.computed
            is_ready = end == sequence.length
            tokens = sequence.buffer[shadow.computed : end]
            if tokens.max() >= self._decoder.vocabulary_size:
                self._blocks.release(shadow.table)
                shadow.lost = True
                continue
            slices.append(Slice(tokens, shadow.computed, shadow.table, int(is_ready)))
            shadow.computed = end
            if is_ready:
                ready.append(sequence)
        if not slices:
            return {}
        return dict(zip(ready, self._decoder.forward(ragged_batch(slices)).best, strict=True))

    def _known(self, guesses: list[int]) -> list[int]:
        """The guesses before the first one that is no token of the model."""
        size = self._vocabulary
        return [*takewhile(lambda token: size is None or token < size, guesses)]

    def _shadow(self, sequence: Sequence) -> _Shadow:
        if sequence not in self._shadows:
            room = blocks_for(len(sequence.buffer))
            self._shadows[sequence] = _Shadow(BlockTable(room))
        return self._shadows[sequence]
