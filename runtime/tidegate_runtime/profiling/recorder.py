"""Keeps where the engine's thread is, as long as it is told so."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Protocol

from tidegate_runtime.profiling.phases import OF_STEP, Phase, Phases

MAX_MARKS = 120_000
"""About 20,000 steps: more than a minute of any model that is worth a look."""
OPERATOR_STEPS = 10


class OperatorRecorder(Protocol):
    """Records what torch does in the thread that starts and stops it."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def events(self, origin_ns: int) -> list[dict[str, Any]]:
        """Chrome's trace events, in microseconds since `origin_ns` of the Unix clock."""
        ...


@dataclass(frozen=True)
class Span:
    """A phase, from and to nanoseconds of the Unix clock."""

    phase: Phase
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Step:
    """The spans of one step, which ran `tokens` of `rows` sequences."""

    spans: tuple[Span, ...]
    rows: int
    tokens: int


@dataclass(frozen=True)
class Recording:
    """What was recorded: without gaps, in order."""

    pid: int
    thread: int
    spans: list[Span]
    steps: list[Step]
    operator_steps: int
    """The first so many steps have their operators recorded, which slows them."""


class Recorder(Phases):
    """Belongs to the engine's thread from `begin` to `end`.

    The operators of the first steps are recorded too: they are thousands in a step and alike in
    most, and recording them costs more than many of them do. Beyond `MAX_MARKS` nothing is kept.
    """

    def __init__(
        self, operators: OperatorRecorder, clock: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        self._operators = operators
        self._clock = clock
        self._marks: list[tuple[int, Phase]] = []
        self._ran: list[tuple[int, int]] = []
        self._operators_are_on = False
        self._operator_steps = 0
        self._offset_ns = 0
        self._thread = 0

    def begin(self) -> None:
        """Record from now on."""
        self._thread = threading.get_native_id()
        self._offset_ns = time.time_ns() - self._clock()
        self._operators.start()
        self._operators_are_on = True
        self.enter(Phase.INTAKE)

    def end(self) -> None:
        """Record no more."""
        self._stop_operators()
        self.enter(Phase.PROFILING)

    def enter(self, phase: Phase) -> None:
        """Keep that the thread is there from now on."""
        if self._operators_are_on and len(self._ran) == OPERATOR_STEPS and phase is Phase.INTAKE:
            self._stop_operators()
        self._mark(phase)

    def run(self, tokens: Mapping[Any, int]) -> None:
        """Keep how much a step runs."""
        self._ran.append((len(tokens), sum(tokens.values())))

    def recording(self) -> Recording:
        """What was kept, once it has ended."""
        spans = [
            Span(phase, start + self._offset_ns, end + self._offset_ns)
            for (start, phase), (end, _) in pairwise(self._marks)
        ]
        steps = [
            Step(each, rows, tokens)
            for each, (rows, tokens) in zip(_steps(spans), self._ran, strict=False)
        ]
        return Recording(os.getpid(), self._thread, spans, steps, self._operator_steps)

    def operator_events(self, origin_ns: int) -> list[dict[str, Any]]:
        """What torch did, as `OperatorRecorder.events` tells it."""
        return self._operators.events(origin_ns)

    def _mark(self, phase: Phase) -> None:
        if len(self._marks) < MAX_MARKS:
            self._marks.append((self._clock(), phase))

    def _stop_operators(self) -> None:
        if self._operators_are_on:
            self._mark(Phase.PROFILING)
            self._operators_are_on = False
            self._operator_steps = len(self._ran)
            self._operators.stop()


def _steps(spans: list[Span]) -> Iterator[tuple[Span, ...]]:
    """The spans of each step. One that found nothing to run is none."""
    for is_step, group in groupby(spans, key=lambda span: span.phase in OF_STEP):
        found = tuple(group)
        if is_step and any(span.phase is Phase.FORWARD for span in found):
            yield found
