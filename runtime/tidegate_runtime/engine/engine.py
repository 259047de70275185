"""The step loop: a thread that turns waiting sequences into tokens."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable
from collections.abc import Sequence as Many
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tidegate_runtime.engine.block_manager import BLOCK_TOKENS
from tidegate_runtime.engine.errand import Errand
from tidegate_runtime.engine.generation import Event, Generation, publish
from tidegate_runtime.engine.model_runner import ModelRunner
from tidegate_runtime.engine.output import OutputTracker
from tidegate_runtime.engine.scheduler import Scheduler
from tidegate_runtime.engine.sequence import Sequence, SequenceId, SequenceRequest
from tidegate_runtime.engine.step import Stepper, StepReport
from tidegate_runtime.engine.timekeeper import Observer, Timekeeper
from tidegate_runtime.engine.timeline import Ending
from tidegate_runtime.errors import EngineDead, GenerationFailed, RequestRefused
from tidegate_runtime.profiling.phases import UNWATCHED, Phase
from tidegate_runtime.profiling.recorder import Recorder
from tidegate_runtime.speculation.base import Proposer
from tidegate_runtime.speculation.speculator import Speculator
from tidegate_runtime.spill.recalls import Recalls
from tidegate_runtime.text.detokenizer import Detokenizer, detokenizer_of
from tidegate_runtime.text.shown_tokens import ShownTokens

log = logging.getLogger(__name__)

MAX_WAITING = 1024
_SWITCH_S = 0.0005


@dataclass(frozen=True)
class EngineStats:
    """A glance at the engine, for metrics and readiness; `totals` are since its start."""

    waiting: int
    running: int
    used_blocks: int
    total_blocks: int
    totals: StepReport


class Engine:
    """Runs sequences until each is finished, aborted or failed. Only its thread runs steps.

    Callers leave newcomers and aborts in an inbox, which the thread empties between two steps;
    without work the thread sleeps on a condition. A sequence that fails ends alone; a step that
    fails ends every sequence and the engine (`dead` says why).
    """

    def __init__(
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        tokenizer: Any,
        *,
        eos_tokens: frozenset[int],
        observer: Observer,
        on_death: Callable[[EngineDead], None] = lambda _: None,
        proposer: Proposer | None = None,
        recalls: Recalls | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._recalls = recalls
        self._new_detokenizer = detokenizer_of(tokenizer)
        self._eos_tokens = eos_tokens
        self._timekeeper = Timekeeper(observer)
        self._on_death = on_death
        self._speculator = None if proposer is None else Speculator(proposer)
        self._stepper = Stepper(runner, scheduler, eos_tokens, self._speculator)
        self._inbox = threading.Condition()
        self._newcomers: dict[Sequence, Generation] = {}
        self._aborted: set[Sequence] = set()
        self._errands: list[Errand] = []
        self._recalled = False
        self._stalled = False
        self._stopping: str | None = None
        self._dead: EngineDead | None = None
        self._callers: dict[Sequence, Generation] = {}
        self._trackers: dict[Sequence, OutputTracker] = {}
        self._totals = StepReport()
        self._ids = itertools.count(1)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the step loop."""
        # Between two steps the interpreter is needed for a moment only, but a busy event loop gives
        # it away every 5 ms unless told otherwise, which is longer than a step.
        sys.setswitchinterval(_SWITCH_S)
        if self._recalls is not None:
            self._recalls.start(self._wake)
        self._thread.start()

    def stop(self, why: str) -> None:
        """Fail what is still running with `why`, and end the thread."""
        with self._inbox:
            self._stopping = why
            self._inbox.notify()
        self._thread.join()
        if self._recalls is not None:
            self._recalls.stop()

    @property
    def dead(self) -> EngineDead | None:
        """Why no step will ever run again; None while the engine works."""
        return self._dead

    @property
    def cache_tokens(self) -> int:
        """How many tokens the whole cache holds."""
        return self._scheduler.blocks.total_blocks * BLOCK_TOKENS

    def stats(self) -> EngineStats:
        """Counts that may be a step old; safe to call from any thread."""
        blocks = self._scheduler.blocks
        return EngineStats(
            waiting=len(self._scheduler.waiting) + len(self._newcomers),
            running=len(self._scheduler.running),
            used_blocks=blocks.used_blocks,
            total_blocks=blocks.total_blocks,
            totals=self._totals,
        )

    @asynccontextmanager
    async def generate(
        self, requests: Many[SequenceRequest], arrived_s: float | None = None
    ) -> AsyncIterator[Generation]:
        """Submit sequences and iterate over their events; leaving the block aborts the rest.

        `arrived_s` is when their request arrived on the monotonic clock; now, when it is None.

        Raises RequestRefused when one can never fit or too many wait, EngineDead when no step
        will run any more.
        """
        for request in requests:
            self._check_fits(request)
        generation = Generation(len(requests))
        sequences = self._submit(requests, generation, arrived_s)
        try:
            yield generation
        finally:
            with self._inbox:
                self._aborted |= sequences
                self._inbox.notify()

    @asynccontextmanager
    async def watched(self, recorder: Recorder) -> AsyncIterator[None]:
        """Let `recorder` see where the engine's thread is until the block is left.

        Raises EngineDead when no step will run any more.
        """

        def begin() -> None:
            recorder.begin()
            self._stepper.phases = recorder

        def end() -> None:
            self._stepper.phases = UNWATCHED
            recorder.end()

        try:
            await self._between_steps(begin)
            yield
        finally:
            await self._between_steps(end)

    async def _between_steps(self, work: Callable[[], None]) -> None:
        """Have `work` done by the engine's thread; raises what it raises, and EngineDead."""
        errand = Errand(work)
        with self._inbox:
            self._check_alive()
            self._errands.append(errand)
            self._inbox.notify()
        await asyncio.wrap_future(errand.done)

    def _check_alive(self) -> None:
        why_not = self._dead.message if self._dead else self._stopping
        if why_not is not None:
            raise EngineDead(why_not)

    def _check_fits(self, request: SequenceRequest) -> None:
        tokens = len(request.prompt) + request.max_tokens
        if not self._scheduler.blocks.fits(tokens):
            raise RequestRefused(
                f"This request needs room for {tokens} tokens ({len(request.prompt)} in the prompt "
                f"and {request.max_tokens} to generate), but the key/value cache holds "
                f"{self.cache_tokens}. Shorten the prompt or lower max_tokens.",
                param="max_tokens",
                code="kv_cache_exceeded",
            )

    def _submit(
        self, requests: Many[SequenceRequest], generation: Generation, arrived_s: float | None
    ) -> set[Sequence]:
        newcomers = {
            Sequence.start(SequenceId(next(self._ids)), request): generation for request in requests
        }
        for sequence in newcomers:
            self._timekeeper.queued(sequence, arrived_s)
            generation.timelines.append(sequence.timeline)
        with self._inbox:
            self._check_alive()
            waiting = self.stats().waiting
            if waiting + len(newcomers) > MAX_WAITING:
                raise RequestRefused(
                    f"{waiting} sequences wait already and at most {MAX_WAITING} may; "
                    "try again later.",
                    code="engine_overloaded",
                    status=503,
                    retry_after_s=5,
                )
            self._newcomers |= newcomers
            self._inbox.notify()
        return set(newcomers)

    # --- the engine's thread ----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._take_inbox():
                if self._scheduler.has_work:
                    self._step()
        except Exception as error:
            log.exception("the engine's step failed")
            # First readiness, then the callers: none of them may come back to this replica.
            self._on_death(EngineDead(f"{type(error).__name__}: {error}"))
            self._die(f"the engine failed ({type(error).__name__}: {error}); retry elsewhere")
        else:
            self._die(self._stopping or "the engine was stopped")

    def _take_inbox(self) -> bool:
        """Wait for work and take it in; False when the engine is to stop."""
        self._stepper.phases.enter(Phase.INTAKE)
        with self._inbox:
            while not (
                self._newcomers
                or self._aborted
                or self._can_step
                or self._errands
                or self._stopping
            ):
                self._stepper.phases.enter(Phase.WAITING)
                self._inbox.wait()
                self._stepper.phases.enter(Phase.INTAKE)
            if self._stopping is not None:
                return False
            newcomers, self._newcomers = self._newcomers, {}
            aborted, self._aborted = self._aborted, set()
            recalled, self._recalled = self._recalled, False
            errands, self._errands = self._errands, []
        for errand in errands:
            errand.run()
        if recalled and self._recalls is not None:
            self._recalls.settle()
        self._callers |= newcomers
        for sequence in newcomers:
            detokenizer: Detokenizer = self._new_detokenizer()
            if shown := sequence.request.shown_tokens:
                detokenizer = ShownTokens(self._new_detokenizer, shown)
            self._trackers[sequence] = OutputTracker(detokenizer, sequence, self._eos_tokens)
            self._scheduler.add(sequence)
        for sequence in aborted & self._callers.keys():
            self._forget(sequence, "abort")
        return True

    @property
    def _can_step(self) -> bool:
        """Whether a step may do something, as far as is known; called with the inbox held."""
        return self._recalled or (self._scheduler.has_work and not self._stalled)

    def _wake(self) -> None:
        """Spilled blocks have come back; called in another thread."""
        with self._inbox:
            self._recalled = True
            self._inbox.notify()

    def _step(self) -> None:
        done = self._stepper.step(self._trackers)
        self._stalled = done is None
        if done is None:
            return
        if self._recalls is not None and done.report.prompt_tokens:
            self._recalls.computed(done.report.prompt_tokens, done.report.seconds)
        self._totals = self._totals.and_then(done.report)
        self._timekeeper.stepped(done)
        told: dict[Generation, list[Event]] = {}
        for sequence, found in done.events.items():
            told.setdefault(self._callers[sequence], []).extend(found)
            last = found[-1]
            ending = "error" if isinstance(last, GenerationFailed) else last.finish_reason
            if ending is not None:
                self._forget(sequence, ending)
        publish(told)

    def _forget(self, sequence: Sequence, ending: Ending) -> None:
        self._timekeeper.ended(sequence, ending)
        del self._callers[sequence], self._trackers[sequence]
        self._scheduler.remove(sequence)
        if self._speculator is not None:
            self._speculator.forget(sequence)

    def _die(self, why: str) -> None:
        dead = EngineDead(why)
        with self._inbox:
            self._dead = dead
            callers = self._callers | self._newcomers
            self._newcomers = {}
            errands, self._errands = self._errands, []
        for errand in errands:
            errand.fail(dead)
        for sequence in callers:
            self._timekeeper.ended(sequence, "error")
        publish({generation: [dead] for generation in callers.values()})
