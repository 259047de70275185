"""The model that is measured, and its engine in this process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from tidegate.protocol.openai import ChatCompletionRequest, ChatMessage
from tidegate_runtime.artifact.load import load_generator
from tidegate_runtime.artifact.manifest import artifact_digest, default_kv
from tidegate_runtime.artifact.open import open_artifact
from tidegate_runtime.chat.prompts import ChatPrompts
from tidegate_runtime.context.compressor import Compressor
from tidegate_runtime.engine.sequence import SamplingParams, SequenceRequest
from tidegate_runtime.models.open import open_decoder
from tidegate_runtime.server.loading import build_engine
from tidegate_runtime.server.metrics import Metrics
from tidegate_runtime.server.spill_metrics import SpillMetrics
from tidegate_runtime.spill.open import SpillPlan

_KV_BYTES = 1 << 28
_DISK_BYTES = 1 << 30
_SCORED = SamplingParams(temperature=0.0, logprobs=0)


class Model:
    """The model of an artifact, and an engine with an empty cache, running.

    With `spill` its prefixes go to that directory.
    """

    def __init__(self, artifact: Path, threads: int, spill: Path | None = None) -> None:
        opened = open_artifact(artifact)
        self.precision = opened.manifest.precision
        loaded = load_generator(opened, context_tokens=None)
        self.tokenizer = loaded.tokenizer
        self._prompts = ChatPrompts(loaded.tokenizer)
        kv, metrics = default_kv(self.precision), Metrics("benchmark")
        self.engine = build_engine(
            loaded,
            open_decoder(artifact, threads=threads, kv=kv),
            kv_cache_bytes=_KV_BYTES,
            free_bytes=_KV_BYTES,
            max_sequences=16,
            metrics=metrics,
            on_death=lambda _: None,
            spill=None
            if spill is None
            else SpillPlan(
                memory_bytes=0,
                disk_bytes=_DISK_BYTES,
                root=spill,
                artifact=artifact_digest(opened.manifest),
                kv=kv,
                context_tokens=loaded.context_tokens,
                observer=SpillMetrics(metrics),
            ),
        )
        self.engine.start()
        self.compressor = Compressor(self.tokenizer, self.engine, loaded.context_tokens)

    def tokens(self, text: str) -> list[int]:
        """Without special tokens around them."""
        return [int(token) for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]]

    def chat(self, messages: Sequence[ChatMessage]) -> list[int]:
        """A conversation as its tokens, ready for the answer."""
        request = ChatCompletionRequest(model="any", messages=list(messages))
        return self._prompts.tokens(request)

    async def nats(self, prompt: list[int], answer: list[int]) -> float:
        """The mean surprise of the answer's tokens after the prompt."""
        request = SequenceRequest((*prompt, *answer), 0, _SCORED, prompt_logprobs=True)
        async with self.engine.generate([request]) as events:
            found = [one.logprob async for event in events for one in event.prompt_logprobs]
        return -fmean(found[-len(answer) :])
