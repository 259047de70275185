"""The step loop: a thread that turns waiting sequences into tokens."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from collections.abc import Sequence as Many
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from tidegate_runtime.engine.block_manager import BLOCK_TOKENS
from tidegate_runtime.engine.generation import Generation
from tidegate_runtime.engine.model_runner import StepLogits
from tidegate_runtime.engine.output import OutputTracker
from tidegate_runtime.engine.sampler import sample_sequence, token_logprobs
from tidegate_runtime.engine.scheduler import Schedule, Scheduler
from tidegate_runtime.engine.sequence import Sequence, SequenceId, SequenceRequest
from tidegate_runtime.errors import EngineDead, GenerationFailed, RequestRefused

log = logging.getLogger(__name__)

MAX_WAITING = 1024


class Runner(Protocol):
    """What the engine needs of a model: one forward over the pending tokens of sequences."""

    def forward(self, work: dict[Sequence, int]) -> StepLogits: ...


class StepObserver(Protocol):
    """Is told of every step, in the engine's thread."""

    def step(self, seconds: float, prompt_tokens: int, preempted: int) -> None: ...


@dataclass(frozen=True)
class EngineStats:
    """A glance at the engine, for metrics and readiness."""

    waiting: int
    running: int
    used_blocks: int
    total_blocks: int


@dataclass(frozen=True)
class _Live:
    """A sequence with what its tokens become and who waits for them."""

    sequence: Sequence
    tracker: OutputTracker
    generation: Generation


class Engine:
    """Runs sequences until each is finished, aborted or failed. Only its thread runs steps.

    Callers leave newcomers and aborts in an inbox, which the thread empties between two steps;
    without work the thread sleeps on a condition. A sequence whose sampling fails ends alone; a
    step that fails ends every sequence and the engine (`dead` says why).
    """

    def __init__(
        self,
        runner: Runner,
        scheduler: Scheduler,
        tokenizer: Any,
        *,
        eos_tokens: frozenset[int],
        observer: StepObserver,
        on_death: Callable[[EngineDead], None] = lambda _: None,
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._tokenizer = tokenizer
        self._eos_tokens = eos_tokens
        self._observer = observer
        self._on_death = on_death
        self._inbox = threading.Condition()
        self._newcomers: list[_Live] = []
        self._aborted: set[SequenceId] = set()
        self._stopping: str | None = None
        self._dead: EngineDead | None = None
        self._live: dict[SequenceId, _Live] = {}
        self._ids = itertools.count(1)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the step loop."""
        self._thread.start()

    def stop(self, why: str) -> None:
        """Fail what is still running with `why`, and end the thread."""
        with self._inbox:
            self._stopping = why
            self._inbox.notify()
        self._thread.join()

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
        )

    @asynccontextmanager
    async def generate(self, requests: Many[SequenceRequest]) -> AsyncIterator[Generation]:
        """Submit sequences and iterate over their events; leaving the block aborts the rest.

        Raises RequestRefused when one can never fit or too many wait, EngineDead when no step
        will run any more.
        """
        for request in requests:
            self._check_fits(request)
        generation = Generation(len(requests))
        ids = self._submit(requests, generation)
        try:
            yield generation
        finally:
            self._abort(ids)

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

    def _submit(self, requests: Many[SequenceRequest], generation: Generation) -> set[SequenceId]:
        newcomers = []
        for request in requests:
            sequence = Sequence.start(SequenceId(next(self._ids)), request)
            tracker = OutputTracker(self._tokenizer, sequence, self._eos_tokens)
            newcomers.append(_Live(sequence, tracker, generation))
        with self._inbox:
            if self._dead is not None:
                raise EngineDead(self._dead.message)
            if self._stopping is not None:
                raise EngineDead(self._stopping)
            waiting = self.stats().waiting
            if waiting + len(newcomers) > MAX_WAITING:
                raise RequestRefused(
                    f"{waiting} sequences wait already and at most {MAX_WAITING} may; "
                    "try again later.",
                    code="engine_overloaded",
                    status=503,
                    retry_after_s=5,
                )
            self._newcomers.extend(newcomers)
            self._inbox.notify()
        return {live.sequence.id for live in newcomers}

    def _abort(self, ids: set[SequenceId]) -> None:
        with self._inbox:
            self._aborted |= ids
            self._inbox.notify()

    # --- the engine's thread ----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._take_inbox():
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
        with self._inbox:
            while not (self._newcomers or self._aborted or self._scheduler.has_work):
                if self._stopping is not None:
                    return False
                self._inbox.wait()
            newcomers, self._newcomers = self._newcomers, []
            aborted, self._aborted = self._aborted, set()
            if self._stopping is not None:
                self._live.update({live.sequence.id: live for live in newcomers})
                return False
        for live in newcomers:
            self._live[live.sequence.id] = live
            self._scheduler.add(live.sequence)
        for sequence_id in aborted & self._live.keys():
            self._forget(sequence_id)
        return True

    def _step(self) -> None:
        started = time.perf_counter()
        schedule = self._scheduler.schedule()
        if not schedule.tokens:
            return
        prompt_tokens = _prompt_tokens(schedule)
        result = self._runner.forward(schedule.tokens)
        before = {sequence: sequence.computed_tokens for sequence in schedule.tokens}
        self._scheduler.advance(schedule)
        for sequence, rows in result.rows.items():
            self._emit(sequence, before[sequence], result, rows)
        self._observer.step(time.perf_counter() - started, prompt_tokens, schedule.preempted)

    def _emit(self, sequence: Sequence, start: int, result: StepLogits, rows: range) -> None:
        """Choose a sequence's next token, if its logits are here, and tell its caller."""
        live = self._live[sequence.id]
        try:
            if sequence.request.prompt_logprobs:
                _keep_prompt_logprobs(sequence, start, result, rows)
            if sequence.pending_tokens > 0:
                return
            output = live.tracker.take(sample_sequence(result.logits[rows[-1]], sequence))
        except (GenerationFailed, ArithmeticError, LookupError, ValueError, RuntimeError) as error:
            log.exception("sequence %s failed", sequence.id)
            self._forget(sequence.id)
            live.generation.publish(_as_failure(error))
            return
        if output.finish_reason is not None:
            self._forget(sequence.id)
        live.generation.publish(output)

    def _forget(self, sequence_id: SequenceId) -> None:
        live = self._live.pop(sequence_id)
        self._scheduler.remove(live.sequence)

    def _die(self, why: str) -> None:
        dead = EngineDead(why)
        with self._inbox:
            self._dead = dead
            live = [*self._live.values(), *self._newcomers]
            self._newcomers = []
        for generation in {item.generation for item in live}:
            generation.publish(dead)


def _prompt_tokens(schedule: Schedule) -> int:
    """How many tokens of a step are not the one new token of a decoding sequence."""
    return sum(count for count in schedule.tokens.values() if count > 1)


def _keep_prompt_logprobs(sequence: Sequence, start: int, result: StepLogits, rows: range) -> None:
    """Row i of a chunk from `start` predicts token start+i+1; keep what lies in the prompt."""
    prompt = sequence.request.prompt
    known = len(sequence.prompt_logprobs) + 1
    wanted = [
        (row, start + offset + 1)
        for offset, row in enumerate(rows)
        if known <= start + offset + 1 < len(prompt)
    ]
    if not wanted:
        return
    top = sequence.request.sampling.logprobs or 0
    logits = result.logits[wanted[0][0] : wanted[-1][0] + 1]
    sequence.prompt_logprobs += token_logprobs(logits, [prompt[at] for _, at in wanted], top)


def _as_failure(error: Exception) -> GenerationFailed:
    if isinstance(error, GenerationFailed):
        return error
    return GenerationFailed(f"choosing a token failed ({type(error).__name__}: {error})")
