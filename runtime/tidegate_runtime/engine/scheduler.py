"""Which sequence computes how many tokens in the next step. No torch, no clock, no threads."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Protocol

from tidegate_runtime.engine.block_manager import BlockManager, blocks_for
from tidegate_runtime.engine.sequence import Sequence
from tidegate_runtime.engine.waiting_line import WaitingLine

STEP_TOKENS = 512

_by_rank = attrgetter("rank")


class Spill(Protocol):
    """Blocks that were in the cache and may come back (`spill.recalls`)."""

    @property
    def under_way(self) -> int:
        """How many newcomers have some brought back."""

    def awaits(self, sequence: Sequence, known: int, spare: int) -> bool:
        """Whether a newcomer is to wait for blocks behind its first `known`."""

    def leaves(self, sequence: Sequence) -> None:
        """A sequence is about to let go of its blocks."""

    def distrusts(self, sequence: Sequence) -> None:
        """A sequence failed, whose blocks may hold anything."""


@dataclass
class Schedule:
    """One step: how many tokens of each sequence to run, decodes before prefill chunks.

    A decode is one pending token and the sequence's drafts after it. Every sequence in a schedule
    owns blocks for all of its tokens and drafts, and the counts sum to at most the token budget.
    `hit_tokens` of the newcomers' tokens were found in the prefix cache, `missed_tokens` were not;
    `admitted` says for each newcomer how many of its own were.
    """

    tokens: dict[Sequence, int] = field(default_factory=dict)
    admitted: dict[Sequence, int] = field(default_factory=dict)
    preempted: int = 0
    hit_tokens: int = 0
    missed_tokens: int = 0


class Scheduler:
    """Fills a token budget: decodes first, then, priority by priority, prefills and newcomers.

    Rules:
    - Priorities are strict: a newcomer takes the place or the blocks of running sequences with a
      larger priority when there are no others, and nobody is admitted past one that must wait for
      room. Within a priority the line is fair between projects (`WaitingLine`).
    - When blocks run out the lowest in rank is preempted (largest priority, then youngest): its
      blocks go, its tokens stay, and it computes again what the prefix cache has lost by then.
    - A newcomer waits while a running sequence computes the very block that it needs next, and then
      finds it in the cache: so the choices of one prompt compute it once.
    - Drafts are served last: they take what budget and blocks the others leave.
    - A newcomer whose next block was spilled waits outside while it comes back, and others pass it.

    Invariants, between calls: a sequence is waiting or running, never both; waiting ones own no
    block; `running` is in order of rank; at most `max_sequences` run. The first in rank always
    advances and is never preempted, so all that have come in the end finish. A schedule is empty
    only while what was spilled is on its way to all that could run.
    """

    def __init__(
        self,
        blocks: BlockManager,
        *,
        max_sequences: int,
        step_tokens: int = STEP_TOKENS,
        spill: Spill | None = None,
    ) -> None:
        self.blocks = blocks
        self._spill = spill
        self.max_sequences = max_sequences
        self.step_tokens = max(step_tokens, max_sequences)
        self.waiting = WaitingLine()
        self.running: list[Sequence] = []

    @property
    def has_work(self) -> bool:
        """Whether any sequence is waiting or running."""
        return bool(self.waiting or self.running)

    @property
    def decoding(self) -> list[Sequence]:
        """The running sequences that have but their last token to run."""
        return [sequence for sequence in self.running if sequence.pending_tokens == 1]

    @property
    def _prefilling(self) -> list[Sequence]:
        return [sequence for sequence in self.running if sequence.pending_tokens > 1]

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence; the caller has checked that it fits the cache."""
        self.waiting.arrive(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that is finished or aborted, and free its blocks."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.call(sequence)
        self.waiting.leave(sequence)
        self._release(sequence)

    def distrust(self, sequence: Sequence) -> None:
        """Make the blocks of a sequence that failed unknown, wherever they are."""
        self.blocks.forget(sequence.blocks)
        if self._spill is not None:
            self._spill.distrusts(sequence)

    def schedule(self) -> Schedule:
        """Decide the next step; it takes blocks, so `advance` or `remove` must follow."""
        schedule = Schedule()
        schedule.preempted = self._keep_room()
        decoding = self.decoding
        budget = self.step_tokens - len(decoding)
        for sequence in decoding:
            if sequence.drafts:
                sequence.drafts = max(0, min(sequence.drafts, budget))
                if not self.blocks.grow(sequence.blocks, sequence.length + sequence.drafts):
                    sequence.drafts = 0
                budget -= sequence.drafts
            schedule.tokens[sequence] = 1 + sequence.drafts
        budget = self._prefill(schedule, budget)
        for sequence, count in schedule.tokens.items():
            self.waiting.serve(sequence, count)
        return schedule

    def advance(self, sequence: Sequence, tokens: int) -> None:
        """Record that a sequence's next `tokens` tokens were computed; full blocks become known."""
        sequence.computed_tokens += tokens
        full = sequence.computed_tokens // self.blocks.block_tokens
        if full > sequence.registered_blocks:
            hashes = sequence.hashes(full)
            for place in range(sequence.registered_blocks, full):
                self.blocks.register(int(sequence.blocks.ids[place]), hashes[place])
            sequence.registered_blocks = full

    def _keep_room(self) -> int:
        """Give every running sequence, first in rank first, blocks for all its tokens.

        Returns how many were preempted for it.
        """
        running = len(self.running)
        place = 0
        while place < len(self.running):
            sequence = self.running[place]
            if self.blocks.grow(sequence.blocks, sequence.length):
                place += 1
            else:
                self._preempt()
        return running - len(self.running)

    def _release(self, sequence: Sequence) -> None:
        if self._spill is not None:
            self._spill.leaves(sequence)
        self.blocks.release(sequence.blocks)

    def _preempt(self) -> Sequence:
        victim = self.running.pop()
        self._release(victim)
        victim.computed_tokens = victim.registered_blocks = victim.drafts = 0
        victim.timeline.preemptions += 1
        self.waiting.wait(victim)
        return victim

    def _prefill(self, schedule: Schedule, budget: int) -> int:
        """Spend the budget on prompts, priority by priority; returns what is left of it."""
        admits = True
        priorities = {sequence.request.priority for sequence in self._prefilling}
        for priority in sorted(priorities | self.waiting.priorities):
            for sequence in self._prefilling:
                if sequence.request.priority == priority and budget > 0:
                    budget -= self._choose(schedule, sequence, budget)
            if admits:
                admits, budget = self._admit(priority, schedule, budget)
        return budget

    def _choose(self, schedule: Schedule, sequence: Sequence, budget: int) -> int:
        count = min(sequence.pending_tokens, budget)
        schedule.tokens[sequence] = count
        return count

    def _admit(self, priority: int, schedule: Schedule, budget: int) -> tuple[bool, int]:
        """Let newcomers of one priority run; False when one has to wait for room."""
        passed: set[Sequence] = set()
        while budget > 0 and (sequence := self.waiting.first(priority, passed)) is not None:
            known = self.blocks.known(sequence.hashes(sequence.shareable_blocks))
            if self._is_being_computed(sequence, known) or self._is_coming_back(sequence, known):
                passed.add(sequence)
                continue
            for victim in self._make_way(sequence, known):
                budget += schedule.tokens.pop(victim, 0)
                schedule.preempted += 1
            if not self._take_blocks(sequence, known):
                return False, budget
            schedule.admitted[sequence] = sequence.computed_tokens
            schedule.hit_tokens += sequence.computed_tokens
            schedule.missed_tokens += sequence.pending_tokens
            self.waiting.call(sequence)
            insort(self.running, sequence, key=_by_rank)
            budget -= self._choose(schedule, sequence, budget)
        return True, budget

    def _is_being_computed(self, sequence: Sequence, known: int) -> bool:
        """Whether a running sequence of no larger priority will compute the next unknown block."""
        if known == sequence.shareable_blocks:
            return False
        wanted = sequence.hashes(known + 1)[known]
        end = (known + 1) * self.blocks.block_tokens
        return any(
            other.computed_tokens < end
            and known < other.shareable_blocks
            and other.hashes(known + 1)[known] == wanted
            for other in self._prefilling
            if other.request.priority <= sequence.request.priority
        )

    def _is_coming_back(self, sequence: Sequence, known: int) -> bool:
        """Whether the next unknown block may be brought back, for which there has to be a place."""
        if self._spill is None:
            return False
        has_place = len(self.running) + self._spill.under_way < self.max_sequences
        return has_place and self._spill.awaits(sequence, known, len(self.running))

    def _make_way(self, sequence: Sequence, known: int) -> Iterator[Sequence]:
        """Preempt running sequences of larger priorities, if that makes room for a newcomer."""
        priority = sequence.request.priority
        lower = [other for other in self.running if other.request.priority > priority]
        held = sum(other.blocks.length for other in lower)
        missing = self._missing_blocks(sequence, known) - len(lower) - held
        if missing > self.blocks.free_blocks:
            return
        while lower and not self._has_room(sequence, known):
            lower.pop()
            yield self._preempt()

    def _has_room(self, sequence: Sequence, known: int) -> bool:
        has_place = len(self.running) < self.max_sequences
        return has_place and self._missing_blocks(sequence, known) <= self.blocks.free_blocks

    def _missing_blocks(self, sequence: Sequence, known: int) -> int:
        """Free blocks that a newcomer takes, and one that stays free for each of the others.

        Without that one, a newcomer would be preempted at once. Alone it may take all there are.
        """
        own = blocks_for(sequence.length, self.blocks.block_tokens)
        return own - known + len(self.running)

    def _take_blocks(self, sequence: Sequence, known: int) -> bool:
        """Give a newcomer its blocks, known ones first; False when there is no room.

        Known blocks that nobody holds are taken from the free ones, so room is looked for after.
        """
        self.blocks.share(sequence.blocks, sequence.hashes(known))
        if not self._has_room(sequence, known):
            self.blocks.release(sequence.blocks)
            return False
        self.blocks.grow(sequence.blocks, sequence.length)
        sequence.computed_tokens = known * self.blocks.block_tokens
        sequence.registered_blocks = known
        return True
