"""One step: what is scheduled goes through the model, what comes out becomes events."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from operator import add
from typing import NamedTuple

from tidegate_runtime.engine.generation import Event
from tidegate_runtime.engine.model_runner import LogitRows, ModelRunner, StepResult
from tidegate_runtime.engine.output import OutputTracker
from tidegate_runtime.engine.scheduler import Schedule, Scheduler
from tidegate_runtime.engine.sequence import Sequence
from tidegate_runtime.errors import GenerationFailed
from tidegate_runtime.models.base import StepLogits
from tidegate_runtime.profiling.phases import UNWATCHED, Phase, Phases
from tidegate_runtime.sampling.logprobs import (
    check_finite,
    chosen_logprobs,
    keep_prompt_logprobs,
)
from tidegate_runtime.sampling.sampler import choose
from tidegate_runtime.speculation.speculator import Speculator
from tidegate_runtime.speculation.verify import verified

log = logging.getLogger(__name__)

_SEQUENCE_ERRORS = (GenerationFailed, ArithmeticError, LookupError, ValueError, RuntimeError)

Events = dict[Sequence, list[Event]]


class StepReport(NamedTuple):
    """What one step did, or many together: seconds, sequences preempted, and counts of tokens.

    `hit_tokens` of newcomers were in the prefix cache, `missed_tokens` were not; `drafted_tokens`
    were guessed, `accepted_tokens` of them were right.
    """

    seconds: float = 0.0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    preempted: int = 0
    hit_tokens: int = 0
    missed_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    def and_then(self, later: StepReport) -> StepReport:
        """Both together."""
        return StepReport(*map(add, self, later))


class Stepped(NamedTuple):
    """One step: what it gave, when it began, and who joined with how many tokens cached."""

    events: Events
    report: StepReport
    began_s: float
    admitted: Mapping[Sequence, int]


class Stepper:
    """Runs steps. What goes wrong with one sequence is an event of that sequence alone."""

    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        eos_tokens: frozenset[int],
        speculator: Speculator | None,
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._eos_tokens = eos_tokens
        self._speculator = speculator
        self.phases: Phases = UNWATCHED

    def step(self, trackers: Mapping[Sequence, OutputTracker]) -> Stepped | None:
        """Run one step; the caller removes every sequence whose last event is its end.

        None when nothing can run before spilled blocks have come back.
        """
        if self._speculator is not None:
            self.phases.enter(Phase.DRAFTING)
            self._speculator.draft(self._scheduler.decoding)
        self.phases.enter(Phase.SCHEDULING)
        started = time.monotonic()
        schedule = self._scheduler.schedule()
        if not schedule.tokens:
            return None
        prompt_tokens = sum(n for s, n in schedule.tokens.items() if n > 1 + s.drafts)
        drafted = {s: s.drafts for s in schedule.tokens if s.drafts}
        self.phases.enter(Phase.FORWARD)
        self.phases.run(schedule.tokens)
        result = self._runner.forward(schedule.tokens)
        self.phases.enter(Phase.CHOOSING)
        events: Events = {}
        chosen = self._choose(schedule, result, events)
        if self._speculator is not None and self._speculator.watches:
            self._show(self._speculator, result, chosen)
        self.phases.enter(Phase.EMITTING)
        self._emit(schedule, chosen, result, trackers, events)
        seconds = time.monotonic() - started
        accepted = {s: len(chosen[s]) - 1 for s in drafted if s in chosen}
        if self._speculator is not None:
            for sequence, count in accepted.items():
                self._speculator.learn(sequence, drafted[sequence], count)
                sequence.timeline.drafted_tokens += drafted[sequence]
                sequence.timeline.accepted_tokens += count
            if not prompt_tokens:
                self._speculator.timed(sum(schedule.tokens.values()), seconds)
        report = StepReport(
            seconds,
            prompt_tokens,
            sum(len(events[sequence]) for sequence in chosen),
            schedule.preempted,
            schedule.hit_tokens,
            schedule.missed_tokens,
            sum(drafted.values()),
            sum(accepted.values()),
        )
        return Stepped(events, report, started, schedule.admitted)

    def _choose(
        self, schedule: Schedule, result: StepResult, events: Events
    ) -> dict[Sequence, list[int]]:
        """The tokens that each sequence gets; one that fails gets an event instead."""
        asked: list[LogitRows] = []
        for rows in result.rows:
            sequence = rows.sequence
            try:
                if sequence.request.prompt_logprobs:
                    keep_prompt_logprobs(rows, result.logits)
                if schedule.tokens[sequence] >= sequence.pending_tokens and sequence.room:
                    asked.append(_usable_rows(rows, result.logits))
            except _SEQUENCE_ERRORS as error:
                events[sequence] = [self._failed(sequence, error)]
        try:
            found = choose(result.logits, asked, self._eos_tokens)
        except _SEQUENCE_ERRORS:
            found = [self._choose_alone(rows, result, events) for rows in asked]
        return {
            sequence: verified(tokens, sequence.draft_tokens) if sequence.drafts else tokens
            for (sequence, _, _), tokens in zip(asked, found, strict=True)
            if tokens
        }

    def _choose_alone(self, rows: LogitRows, result: StepResult, events: Events) -> list[int]:
        """As `choose` for one sequence, after it failed for many."""
        try:
            return choose(result.logits, [rows], self._eos_tokens)[0]
        except _SEQUENCE_ERRORS as error:
            events[rows.sequence] = [self._failed(rows.sequence, error)]
            return []

    def _emit(
        self,
        schedule: Schedule,
        chosen: dict[Sequence, list[int]],
        result: StepResult,
        trackers: Mapping[Sequence, OutputTracker],
        events: Events,
    ) -> None:
        """Append the chosen tokens, tell what comes of them, and record what was computed."""
        logprobs = chosen_logprobs(chosen, result.rows, result.logits)
        for sequence, count in schedule.tokens.items():
            if sequence in events:
                continue
            ends_prompt = count >= sequence.pending_tokens
            try:
                if sequence in chosen:
                    found = logprobs.get(sequence, ())
                    events[sequence] = [*trackers[sequence].take(chosen[sequence], found)]
                    # The last token was only chosen; the others were guessed right, so they ran.
                    count = sequence.pending_tokens - 1
                elif ends_prompt:
                    events[sequence] = [trackers[sequence].end_of_prompt()]
                self._scheduler.advance(sequence, count)
            except _SEQUENCE_ERRORS as error:
                events[sequence] = [self._failed(sequence, error)]
                chosen.pop(sequence, None)

    def _show(
        self, speculator: Speculator, result: StepResult, chosen: dict[Sequence, list[int]]
    ) -> None:
        """Show the hidden states that chose the last tokens."""
        assert result.logits.hidden is not None  # who watches has asked the decoder for them
        rows = {
            asked.sequence: _first_row(asked) + len(chosen[asked.sequence]) - 1
            for asked in result.rows
            if asked.sequence in chosen
        }
        speculator.see(result.logits.hidden, rows)

    def _failed(self, sequence: Sequence, error: Exception) -> GenerationFailed:
        log.error("sequence %s failed", sequence.id, exc_info=error)
        self._scheduler.distrust(sequence)
        if isinstance(error, GenerationFailed):
            return error
        return GenerationFailed(f"choosing a token failed ({type(error).__name__}: {error})")


def _usable_rows(rows: LogitRows, logits: StepLogits) -> LogitRows:
    """The rows of the last token and its drafts, up to the first that holds no numbers.

    What follows a wrong draft may be anything, so only the first row has to be good. Raises
    GenerationFailed when it is not.
    """
    count, first = 1 + rows.sequence.drafts, _first_row(rows)
    check_finite(logits, first)
    if count == rows.rows == 1:
        return rows
    good = next((i for i in range(count) if not logits.finite[first + i]), count)
    return LogitRows(rows.sequence, first, good)


def _first_row(rows: LogitRows) -> int:
    """That of the last token which was there before the drafts."""
    return rows.first + rows.rows - 1 - rows.sequence.drafts
