"""Engines over the fake decoder, and what tests ask of them."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.model_runner import ModelRunner
from tidegate_runtime.engine.output import TokenOutput
from tidegate_runtime.engine.scheduler import STEP_TOKENS, Scheduler
from tidegate_runtime.engine.sequence import SamplingParams, Sequence, SequenceRequest
from tidegate_runtime.engine.step import StepReport
from tidegate_runtime.models.base import Decoder
from tidegate_runtime.speculation.base import Proposer
from tidegate_runtime.speculation.depth import StepTimes
from tidegate_runtime.spill.open import SpillPlan, open_spill

GREEDY = SamplingParams(temperature=0.0)


class Letters:
    """A tokenizer of one letter per token."""

    def decode(self, tokens: list[int], **options: Any) -> str:
        return "".join(chr(ord("a") + token) for token in tokens)


class FreeRows(StepTimes):
    """More rows cost nothing."""

    trusted_rows = 10_000

    def add(self, rows: int, seconds: float) -> None:
        pass


class Steps:
    """Adds up what an engine reports, and keeps whom it tells of."""

    def __init__(self) -> None:
        self.total = StepReport()
        self.waits: list[dict[float, int]] = []
        self.begun: list[Sequence] = []
        self.gone: list[Sequence] = []

    def step(self, report: StepReport, waits: Mapping[float, int]) -> None:
        self.total = self.total.and_then(report)
        self.waits.append(dict(waits))

    def prefilled(self, sequence: Sequence) -> None:
        self.begun.append(sequence)

    def ended(self, sequence: Sequence) -> None:
        self.gone.append(sequence)


def make_engine(
    decoder: Decoder,
    *,
    blocks: int = 256,
    max_sequences: int = 8,
    step_tokens: int = STEP_TOKENS,
    eager: bool = False,
    open_proposer: Callable[[BlockManager], Proposer | None] = lambda _: None,
    spill: SpillPlan | None = None,
    **options: Any,
) -> Engine:
    """An engine that is running; an eager one speculates whatever it costs."""
    decoder.allocate(blocks)
    manager = BlockManager(blocks)
    recalls = None if spill is None else open_spill(spill, decoder, manager)
    scheduler = Scheduler(
        manager, max_sequences=max_sequences, step_tokens=step_tokens, spill=recalls
    )
    options = {"proposer": open_proposer(manager), **options}
    options = {"recalls": recalls, "eos_tokens": frozenset[int](), "observer": Steps(), **options}
    engine = Engine(ModelRunner(decoder), scheduler, Letters(), **options)
    if eager and engine._speculator is not None:
        engine._speculator._times = FreeRows()
    engine.start()
    return engine


async def outputs_of(engine: Engine, request: SequenceRequest) -> list[TokenOutput]:
    async with engine.generate([request]) as events:
        return [event async for event in events]


async def tokens_of(engine: Engine, request: SequenceRequest) -> list[int | None]:
    return [event.token for event in await outputs_of(engine, request)]


async def wait_for_no_blocks(engine: Engine) -> None:
    started = time.monotonic()
    while engine.stats().used_blocks or engine.stats().running or engine.stats().waiting:
        assert time.monotonic() - started < 60, engine.stats()
        await asyncio.sleep(0.002)
    await asyncio.sleep(0.02)
    assert engine.dead is None
