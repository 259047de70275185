"""What the engine holds of speculation: drafts before a step, and lessons after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass

import torch

from tidegate_runtime.engine.sequence import Sequence
from tidegate_runtime.speculation.base import MAX_DRAFTS, Proposer, Reach, Watcher
from tidegate_runtime.speculation.depth import Acceptance, StepTimes, plan

_FIRST_PROBE = 16
_LAST_PROBE = 256
_STEP = 0.2


@dataclass
class _Rest:
    """For how many more steps nothing is tried, and for how many after the next failure."""

    left: int = 0
    next: int = _FIRST_PROBE


class Speculator:
    """Guesses as far as it pays, and rests while it does not.

    When no guess is worth its row it rests for 16 steps, then tries one; each time that this does
    not change its mind it rests twice as long, up to 256 steps.
    """

    def __init__(self, proposer: Proposer, clock: Callable[[], float] = time.perf_counter) -> None:
        self._proposer = proposer
        self._watcher = proposer if isinstance(proposer, Watcher) else None
        self._clock = clock
        self._times = StepTimes()
        self._acceptance = Acceptance()
        self._draft_s = 0.0
        self._rest = _Rest()
        self._kinds: dict[Sequence, int] = {}

    def draft(self, decoding: Many[Sequence]) -> None:
        """Give those of the decoding sequences guesses for which it pays."""
        self._kinds.clear()
        if self._rest.left > 0:
            self._rest.left -= 1
            return
        reaches = {
            sequence: reach
            for sequence in decoding
            if sequence.room > 1 and (reach := self._proposer.reach(sequence)).tokens > 0
        }
        if not reaches:
            return
        wanted = self._depths(reaches, len(decoding))
        if wanted:
            self._rest.next = _FIRST_PROBE
        else:
            self._rest = _Rest(self._rest.next, min(_LAST_PROBE, 2 * self._rest.next))
            sequence = next(iter(reaches))
            wanted = {sequence: 1}
        self._propose(wanted)
        self._kinds = {sequence: reaches[sequence].kind for sequence in wanted}

    @property
    def watches(self) -> bool:
        """Whether the hidden states of a step that just was are wanted before the next one."""
        return self._watcher is not None and self._rest.left == 0

    def see(self, hidden: torch.Tensor, rows: Mapping[Sequence, int]) -> None:
        """Take them: row `rows[sequence]` of `hidden` chose the sequence's last token."""
        if self._watcher is not None:
            self._watcher.see(hidden, rows)

    def learn(self, sequence: Sequence, drafted: int, accepted: int) -> None:
        """Take what became of the guesses of one sequence."""
        kind = self._kinds.get(sequence)
        if kind is not None and drafted:
            self._acceptance.learn(sequence.id, kind, drafted, accepted)

    def timed(self, rows: int, seconds: float) -> None:
        """Take how long a step without any prefill took."""
        self._times.add(rows, seconds)

    def forget(self, sequence: Sequence) -> None:
        """A sequence has ended."""
        self._acceptance.forget(sequence.id)
        self._proposer.forget(sequence)

    def _depths(self, reaches: dict[Sequence, Reach], decoding: int) -> dict[Sequence, int]:
        rates = [self._acceptance.rate(s.id, reach.kind) for s, reach in reaches.items()]
        limits = [min(reach.tokens, s.room - 1, MAX_DRAFTS) for s, reach in reaches.items()]
        at_once = self._proposer.at_once
        depths = plan(rates, limits, decoding, self._times, self._draft_s, at_once=at_once)
        return {s: depth for s, depth in zip(reaches, depths, strict=True) if depth}

    def _propose(self, wanted: dict[Sequence, int]) -> None:
        started = self._clock()
        for sequence, tokens in self._proposer.propose(wanted).items():
            tokens = tokens[: wanted[sequence]]
            if sequence.matcher is not None:
                tokens = tokens[: sequence.matcher.allowed(tokens)]
            sequence.guess(tokens)
        levels = 1 if self._proposer.at_once else max(wanted.values())
        self._draft_s += _STEP * ((self._clock() - started) / levels - self._draft_s)
