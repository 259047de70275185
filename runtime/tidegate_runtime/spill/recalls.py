"""What the engine's thread knows of spilled blocks: who waits for some, and which are to be kept.

Nothing here waits or touches a tensor; the worker does that.
"""

from __future__ import annotations

from collections.abc import Callable

from tidegate_runtime.engine.block_manager import BlockHash, BlockManager, BlockTable, blocks_for
from tidegate_runtime.engine.sequence import Sequence
from tidegate_runtime.spill.worker import Recall, Recalled, Save, SpillWorker

LEAST_BLOCKS = 2
"""Fewer are computed as fast as they are asked for."""


class Recalls:
    """Recalls that are under way, for a scheduler; see `engine.scheduler.Spill`.

    A recall holds the blocks that it fills with a table of its own, so it does not matter whether
    its newcomer is still there at the end: what came back is cached then, for whoever asks. Each
    newcomer asks once for each time it is admitted.
    """

    def __init__(self, blocks: BlockManager, worker: SpillWorker) -> None:
        self._blocks = blocks
        self._worker = worker
        self._asked: set[Sequence] = set()
        self._coming: dict[BlockHash, Recall] = {}
        self._done: list[Recalled] = []

    def start(self, wake: Callable[[], None]) -> None:
        """Start the worker, whose thread calls `wake` when there is something to settle."""

        def done(recalled: Recalled) -> None:
            self._done.append(recalled)
            wake()

        self._worker.start(done)

    def stop(self) -> None:
        """End the worker when it has kept what it was given."""
        self._worker.stop()

    @property
    def under_way(self) -> int:
        """How many recalls there are."""
        return len({id(recall) for recall in self._coming.values()})

    def awaits(self, sequence: Sequence, known: int, spare: int) -> bool:
        """Whether a newcomer is to wait for blocks behind its first `known`.

        A new recall starts only while `spare` blocks stay free beside those of the newcomer.
        """
        lacking = sequence.shareable_blocks - known
        if lacking < LEAST_BLOCKS:
            return False
        keys = sequence.hashes(sequence.shareable_blocks)
        if keys[known] in self._coming:
            return True
        if sequence in self._asked:
            return False
        table = BlockTable(len(keys))
        self._blocks.share(table, keys[:known])
        wanted = blocks_for(sequence.length, self._blocks.block_tokens) - known
        if wanted + spare > self._blocks.free_blocks:
            self._blocks.release(table)
            return False
        self._blocks.grow(table, len(keys) * self._blocks.block_tokens)
        recall = Recall(table, known, keys[known:])
        self._asked.add(sequence)
        self._coming |= dict.fromkeys(recall.keys, recall)
        self._worker.recall(recall)
        return True

    def settle(self) -> None:
        """Make known what has come back, and let go of it."""
        while self._done:
            recall, blocks = self._done.pop(0)
            filled = recall.table.ids[recall.known : recall.known + blocks].tolist()
            for block, key in zip(filled, recall.keys, strict=False):
                self._blocks.register(block, key)
            for key in recall.keys:
                del self._coming[key]
            self._blocks.release(recall.table)

    def leaves(self, sequence: Sequence) -> None:
        """Have the blocks of a sequence kept that is about to let go of them."""
        self._asked.discard(sequence)
        if sequence.registered_blocks == 0 or sequence.request.prompt_logprobs:
            return
        saves = []
        for key in sequence.hashes(sequence.registered_blocks):
            block = self._blocks.block_of(key)
            if block is not None:
                saves.append(Save(block, key, self._blocks.version(block)))
        self._worker.save(saves)

    def distrusts(self, sequence: Sequence) -> None:
        """Have copies removed of the blocks of a sequence that failed."""
        self._worker.drop(sequence.hashes(sequence.registered_blocks))

    def computed(self, tokens: int, seconds: float) -> None:
        """A step has run so many tokens of prompts."""
        self._worker.worth.computed(tokens, seconds)
