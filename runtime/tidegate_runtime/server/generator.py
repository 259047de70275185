"""The service of a model that generates: requests become jobs, jobs become answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from tidegate.protocol.openai import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    Completion,
    CompletionRequest,
    SamplingFields,
)
from tidegate_runtime.artifact.load import LoadedModel
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.output import TokenOutput
from tidegate_runtime.engine.sequence import SamplingParams, SequenceRequest
from tidegate_runtime.server.caller import Caller
from tidegate_runtime.server.chat import chat_answer, chat_chunks
from tidegate_runtime.server.completions import completion_answer, completion_chunks
from tidegate_runtime.server.job import Choice, Job
from tidegate_runtime.server.prompt import chat_tokens, output_limit, text_tokens
from tidegate_runtime.server.replica import Pressure
from tidegate_runtime.server.sampling import sampling_params
from tidegate_runtime.server.token_text import TokenText

_SILENT_COMPLETION_TOKENS = 16


class Generator:
    """Chat completions and completions.

    Every method raises RequestRefused before anything is queued, and GenerationFailed later.
    """

    def __init__(self, loaded: LoadedModel, engine: Engine) -> None:
        self._loaded = loaded
        self._engine = engine
        self._texts = TokenText(loaded.tokenizer)
        self.context_tokens = loaded.context_tokens
        self.kv_cache_tokens = engine.cache_tokens

    def pressure(self) -> Pressure:
        """What the engine says of its blocks and its waiting line."""
        stats = self._engine.stats()
        return Pressure(stats.used_blocks / max(1, stats.total_blocks), stats.waiting)

    async def chat(self, request: ChatCompletionRequest, caller: Caller) -> ChatCompletion:
        """Answer a chat as a whole."""
        job = await asyncio.to_thread(self._chat_job, request, caller)
        return chat_answer(job, await self._choices(job, caller), self._texts)

    async def stream_chat(
        self, request: ChatCompletionRequest, caller: Caller
    ) -> AsyncGenerator[ChatCompletionChunk]:
        """Answer a chat piece by piece."""
        job = await asyncio.to_thread(self._chat_job, request, caller)
        async with self._outputs(job, caller) as outputs:
            chunks = chat_chunks(job, outputs, self._texts, with_usage=_with_usage(request))
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk

    async def complete(self, request: CompletionRequest, caller: Caller) -> Completion:
        """Continue prompts, as a whole."""
        job = await asyncio.to_thread(self._completion_job, request, caller)
        return completion_answer(job, await self._choices(job, caller), self._texts)

    async def stream_complete(
        self, request: CompletionRequest, caller: Caller
    ) -> AsyncGenerator[Completion]:
        """Continue prompts, piece by piece."""
        job = await asyncio.to_thread(self._completion_job, request, caller)
        async with self._outputs(job, caller) as outputs:
            chunks = completion_chunks(job, outputs, self._texts, with_usage=_with_usage(request))
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk

    # --- from request to job: tokenising takes time, so these run away from the event loop --------

    def _chat_job(self, request: ChatCompletionRequest, caller: Caller) -> Job:
        tokens = chat_tokens(self._loaded.tokenizer, request.messages)
        logprobs = (request.top_logprobs or 0) if request.logprobs else None
        params = self._params(request, logprobs)
        limit = self._limit(len(tokens), request.output_limit, None)
        sequence = _sequence(request, caller, tokens, params, limit)
        return Job(
            id=Job.new_id("chatcmpl"),
            created=Job.now(),
            model=request.model,
            sequences=tuple(
                replace(sequence, index=choice, choice=choice) for choice in range(request.n or 1)
            ),
            prompt_tokens=len(tokens),
        )

    def _completion_job(self, request: CompletionRequest, caller: Caller) -> Job:
        params = self._params(request, request.logprobs)
        count = request.n or 1
        sequences: list[SequenceRequest] = []
        echoed: list[str] = []
        prompt_tokens = 0
        for prompt in request.prompts:
            tokens = text_tokens(
                self._loaded.tokenizer, prompt, self._loaded.vocabulary_size, "prompt"
            )
            prompt_tokens += len(tokens)
            limit = self._limit(len(tokens), request.max_tokens, _SILENT_COMPLETION_TOKENS)
            if request.echo:
                shown = prompt if isinstance(prompt, str) else self._loaded.tokenizer.decode(tokens)
                echoed.extend([str(shown)] * count)
            sequence = _sequence(request, caller, tokens, params, limit)
            for choice in range(count):
                sequences.append(replace(sequence, index=len(sequences), choice=choice))
        return Job(
            id=Job.new_id("cmpl"),
            created=Job.now(),
            model=request.model,
            sequences=tuple(sequences),
            prompt_tokens=prompt_tokens,
            prompt_texts=tuple(echoed),
        )

    def _params(self, request: SamplingFields, logprobs: int | None) -> SamplingParams:
        return sampling_params(
            request,
            self._loaded.sampling_defaults,
            logprobs=logprobs,
            vocabulary_size=self._loaded.vocabulary_size,
        )

    def _limit(self, prompt_tokens: int, wanted: int | None, silent: int | None) -> int:
        return output_limit(
            prompt_tokens,
            wanted,
            silent,
            context=self.context_tokens,
            cache=self.kv_cache_tokens,
        )

    # --- from job to tokens -----------------------------------------------------------------------

    async def _choices(self, job: Job, caller: Caller) -> list[Choice]:
        choices = [Choice() for _ in job.sequences]
        async with self._outputs(job, caller) as outputs:
            async for output in outputs:
                choices[output.index].take(output)
        return choices

    @asynccontextmanager
    async def _outputs(self, job: Job, caller: Caller) -> AsyncIterator[AsyncIterator[TokenOutput]]:
        """Run a job; leaving the block ends what is still running."""
        async with self._engine.generate(job.sequences, caller.arrived_s) as outputs:
            try:
                yield outputs
            finally:
                caller.trace.generated(job.prompt_tokens, outputs.timelines)


def _with_usage(request: SamplingFields) -> bool:
    return request.stream_options is not None and request.stream_options.include_usage


def _sequence(
    request: SamplingFields, caller: Caller, tokens: list[int], params: SamplingParams, limit: int
) -> SequenceRequest:
    """The first choice of a prompt; the others differ in their numbers only."""
    echo = isinstance(request, CompletionRequest) and bool(request.echo)
    return SequenceRequest(
        prompt=tuple(tokens),
        max_tokens=limit,
        sampling=params,
        stop_strings=tuple(request.stop_strings),
        ignore_eos=bool(request.ignore_eos),
        min_tokens=request.min_tokens or 0,
        prompt_logprobs=echo and params.logprobs is not None,
        project=caller.project,
        priority=caller.priority,
    )
