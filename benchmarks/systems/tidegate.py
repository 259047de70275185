"""Tidegate's engine in this process, without a server in front of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

from benchmarks.driver import Options, run

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import transformers

from tidegate_runtime.artifact.manifest import default_kv
from tidegate_runtime.artifact.open import open_artifact
from tidegate_runtime.engine.block_manager import BlockManager, blocks_for
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.model_runner import ModelRunner
from tidegate_runtime.engine.scheduler import Scheduler
from tidegate_runtime.engine.sequence import SamplingParams, Sequence, SequenceRequest
from tidegate_runtime.engine.step import StepReport
from tidegate_runtime.models.open import open_decoder
from tidegate_runtime.speculation.ngram import NgramProposer

SEED = 1


class Unwatched:
    """Nobody wants to know of the steps."""

    def step(self, report: StepReport, waits: Mapping[float, int]) -> None:
        """Nothing."""

    def prefilled(self, sequence: Sequence) -> None:
        """Nothing."""

    def ended(self, sequence: Sequence) -> None:
        """Nothing."""


def open_engine(options: Options) -> Engine:
    """An engine over an artifact, with room for the largest workload, started."""
    artifact = open_artifact(options.model)
    kv = default_kv(artifact.manifest.precision)
    decoder = open_decoder(options.model, threads=options.threads, kv=kv)
    blocks = options.streams * blocks_for(options.context_tokens)
    decoder.allocate(blocks)
    engine = Engine(
        ModelRunner(decoder),
        Scheduler(BlockManager(blocks), max_sequences=options.streams),
        transformers.AutoTokenizer.from_pretrained(options.model),
        eos_tokens=frozenset(),
        observer=Unwatched(),
        proposer=NgramProposer() if options.speculate else None,
    )
    engine.start()
    return engine


class Tidegate:
    """The engine as its own server would use it."""

    def __init__(self, options: Options) -> None:
        self._engine = open_engine(options)
        self._loop = asyncio.new_event_loop()

    def generate(self, prompts: list[list[int]], max_tokens: int) -> list[int]:
        return self._loop.run_until_complete(self._generate(prompts, max_tokens, temperature=0.0))

    def sample(self, prompts: list[list[int]], max_tokens: int) -> list[int]:
        return self._loop.run_until_complete(self._generate(prompts, max_tokens, temperature=1.0))

    def logprobs(self, window: list[int]) -> list[float]:
        return self._loop.run_until_complete(self._logprobs(window))

    async def _generate(
        self, prompts: list[list[int]], max_tokens: int, *, temperature: float
    ) -> list[int]:
        sampling = SamplingParams(temperature=temperature, seed=SEED)
        requests = [
            SequenceRequest(tuple(prompt), max_tokens, sampling, ignore_eos=True, index=index)
            for index, prompt in enumerate(prompts)
        ]
        made = [0] * len(prompts)
        async with self._engine.generate(requests) as outputs:
            async for output in outputs:
                made[output.index] += 1
        return made

    async def _logprobs(self, window: list[int]) -> list[float]:
        greedy = SamplingParams(temperature=0, logprobs=0)
        request = SequenceRequest(tuple(window), 1, greedy, prompt_logprobs=True)
        async with self._engine.generate([request]) as outputs:
            return [each.logprob async for output in outputs for each in output.prompt_logprobs]


if __name__ == "__main__":
    run(Tidegate)
