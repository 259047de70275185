"""Which sequence computes how many tokens in the next step. No torch, no clock, no threads."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from tidegate_runtime.engine.block_manager import BlockManager, blocks_for
from tidegate_runtime.engine.sequence import Sequence

STEP_TOKENS = 512


@dataclass(frozen=True)
class Schedule:
    """One step: how many pending tokens of each sequence to run, decodes before prefill chunks.

    Every sequence in it owns blocks for all of its tokens, and the counts sum to at most the
    scheduler's token budget.
    """

    tokens: dict[Sequence, int]
    preempted: int = 0


class Scheduler:
    """Fills a token budget: decodes first, then prefill chunks, then newcomers.

    Invariants, between calls:
    - a sequence is waiting or running, never both; waiting ones own no block;
    - both queues are in order of arrival, and no waiting sequence is older than a running one;
    - at most `max_sequences` are running;
    - when blocks run out the youngest running sequence is preempted: its blocks go, its tokens
      stay, and it computes them again later. The oldest always advances, so all of them end.
    """

    def __init__(
        self, blocks: BlockManager, *, max_sequences: int, step_tokens: int = STEP_TOKENS
    ) -> None:
        self.blocks = blocks
        self.max_sequences = max_sequences
        self.step_tokens = step_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    @property
    def has_work(self) -> bool:
        """Whether any sequence is waiting or running."""
        return bool(self.waiting or self.running)

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence; the caller has checked that it fits the cache."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that is finished or aborted, and free its blocks."""
        self.blocks.release(sequence.blocks)
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)

    def schedule(self) -> Schedule:
        """Decide the next step; it takes blocks, so `advance` or `remove` must follow."""
        chosen: dict[Sequence, int] = {}
        preempted = self._keep_room()
        budget = self.step_tokens
        decoding = [sequence for sequence in self.running if sequence.pending_tokens == 1]
        prefilling = [sequence for sequence in self.running if sequence.pending_tokens > 1]
        for sequence in (*decoding, *prefilling):
            budget -= self._choose(chosen, sequence, budget)
        while budget > 0 and preempted == 0 and self._admits():
            sequence = self.waiting.popleft()
            self.running.append(sequence)
            budget -= self._choose(chosen, sequence, budget)
        return Schedule(chosen, preempted)

    def advance(self, schedule: Schedule) -> None:
        """Record that a step has run."""
        for sequence, count in schedule.tokens.items():
            sequence.computed_tokens += count

    def _choose(self, chosen: dict[Sequence, int], sequence: Sequence, budget: int) -> int:
        count = min(sequence.pending_tokens, budget)
        if count > 0:
            chosen[sequence] = count
        return count

    def _keep_room(self) -> int:
        """Give every running sequence, oldest first, blocks for all its tokens; say who lost."""
        preempted = 0
        position = 0
        while position < len(self.running):
            sequence = self.running[position]
            if self.blocks.grow(sequence.blocks, len(sequence.tokens)):
                position += 1
                continue
            victim = self.running.pop()
            self.blocks.release(victim.blocks)
            victim.computed_tokens = 0
            self.waiting.appendleft(victim)
            preempted += 1
        return preempted

    def _admits(self) -> bool:
        """Whether the oldest waiting sequence may run; takes its blocks when it may.

        One block per running sequence stays free, or a newcomer would be preempted at once.
        """
        if not self.waiting or len(self.running) >= self.max_sequences:
            return False
        sequence = self.waiting[0]
        needed = blocks_for(len(sequence.tokens), self.blocks.block_tokens)
        if self.running and needed + len(self.running) > self.blocks.free_blocks:
            return False
        return self.blocks.grow(sequence.blocks, len(sequence.tokens))
