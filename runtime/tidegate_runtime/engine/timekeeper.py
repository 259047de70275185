"""Keeps the timelines of an engine's sequences, and tells its observer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from tidegate_runtime.engine.sequence import Sequence
from tidegate_runtime.engine.step import Stepped, StepReport
from tidegate_runtime.engine.timeline import Ending
from tidegate_runtime.errors import GenerationFailed


class Observer(Protocol):
    """Is told of what happens, in the engine's thread."""

    def step(self, report: StepReport, waits: Mapping[float, int]) -> None:
        """A step is done. `waits` are the seconds that sequences waited for their next token in
        it, and how many did: most waited equally long, so there are few entries.
        """
        ...

    def prefilled(self, sequence: Sequence) -> None:
        """The prompt has been run, which gave the first token, if one was asked for."""
        ...

    def ended(self, sequence: Sequence) -> None:
        """The sequence finished, failed or was aborted; its timeline is complete."""
        ...


class Timekeeper:
    """Looks at the clock once a step, however many sequences are in it."""

    def __init__(self, observer: Observer, clock: Callable[[], float] = time.monotonic) -> None:
        self._observer = observer
        self._clock = clock
        self._steps = 0

    def queued(self, sequence: Sequence, arrived_s: float | None) -> None:
        """A sequence came, of a request that arrived then, or now."""
        timeline = sequence.timeline
        timeline.queued_s = self._clock()
        timeline.arrived_s = timeline.queued_s if arrived_s is None else arrived_s
        timeline.prompt_tokens = len(sequence.request.prompt)

    def stepped(self, done: Stepped) -> None:
        """A step is done; those that ended in it are told of after it."""
        now = self._clock()
        self._steps += 1
        for sequence, cached_tokens in done.admitted.items():
            timeline = sequence.timeline
            if timeline.started_s is None:
                timeline.started_s = done.began_s
                timeline.first_step = self._steps
                timeline.cached_tokens = cached_tokens
        before: dict[float, int] = {}
        for sequence, found in done.events.items():
            if isinstance(found[-1], GenerationFailed):
                continue
            timeline = sequence.timeline
            last, timeline.last_token_s = timeline.last_token_s, now
            if last is None:
                timeline.first_token_s = now
                self._observer.prefilled(sequence)
            else:
                before[last] = before.get(last, 0) + 1
        self._observer.step(done.report, {now - last: count for last, count in before.items()})

    def ended(self, sequence: Sequence, ending: Ending) -> None:
        """A sequence has ended, so."""
        timeline = sequence.timeline
        timeline.ended_s = self._clock()
        timeline.ending = ending
        timeline.generated_tokens = sequence.output_tokens
        if timeline.started_s is not None:
            timeline.steps = self._steps - timeline.first_step + 1
        self._observer.ended(sequence)
