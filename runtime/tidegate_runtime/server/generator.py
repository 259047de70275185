"""The service of a model that generates: requests become jobs, jobs become answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from tidegate.protocol.openai import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatMessage,
    Completion,
    CompletionRequest,
    SamplingFields,
)
from tidegate_runtime.adapters.pool import AdapterPool
from tidegate_runtime.artifact.load import LoadedModel
from tidegate_runtime.chat.prompts import ChatPrompts
from tidegate_runtime.context.compressor import Compressor
from tidegate_runtime.context.prompts import (
    cuttable_chat,
    cuttable_prompt,
    split_tail,
    with_texts,
)
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.output import TokenOutput
from tidegate_runtime.engine.sequence import SamplingParams, SequenceRequest
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.grammar.compiler import Compiler
from tidegate_runtime.grammar.tables import NO_TABLES, TokenTables
from tidegate_runtime.server.caller import Caller
from tidegate_runtime.server.chat import chat_answer, chat_chunks
from tidegate_runtime.server.completions import completion_answer, completion_chunks
from tidegate_runtime.server.guided import wanted_grammar
from tidegate_runtime.server.job import Choice, Job
from tidegate_runtime.server.profiler import Profiler
from tidegate_runtime.server.prompt import output_limit, text_tokens
from tidegate_runtime.server.replica import Pressure
from tidegate_runtime.server.sampling import sampling_params
from tidegate_runtime.server.token_text import TokenText
from tidegate_runtime.server.tokens import Tokens

_SILENT_COMPLETION_TOKENS = 16


class Generator:
    """Chat completions and completions.

    Every method raises RequestRefused before anything is queued, and GenerationFailed later.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        engine: Engine,
        prompts: ChatPrompts | None = None,
        adapters: AdapterPool | None = None,
        tables: TokenTables | RequestRefused = NO_TABLES,
    ) -> None:
        self._loaded = loaded
        self.adapters = adapters
        self._engine = engine
        self._prompts = prompts or ChatPrompts(loaded.tokenizer)
        self._texts = TokenText(loaded.tokenizer)
        self.tokens = Tokens(loaded, self._prompts)
        self._compressor = Compressor(loaded.tokenizer, engine, loaded.context_tokens)
        self.profiler = Profiler(engine)
        self.grammars = Compiler(tables)
        self.context_tokens = loaded.context_tokens
        self.kv_cache_tokens = engine.cache_tokens

    def pressure(self) -> Pressure:
        """What the engine says of its blocks and its waiting line."""
        stats = self._engine.stats()
        return Pressure(stats.used_blocks / max(1, stats.total_blocks), stats.waiting)

    async def chat(self, request: ChatCompletionRequest, caller: Caller) -> ChatCompletion:
        """Answer a chat as a whole."""
        job = await self._guided(await self._chat(request, caller), request)
        return chat_answer(*await self._choices(job, caller), self._texts)

    async def stream_chat(
        self, request: ChatCompletionRequest, caller: Caller
    ) -> AsyncGenerator[ChatCompletionChunk]:
        """Answer a chat piece by piece."""
        job = await self._guided(await self._chat(request, caller), request)
        async with self._outputs(job, caller) as (job, outputs):
            chunks = chat_chunks(job, outputs, self._texts, with_usage=_with_usage(request))
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk

    async def complete(self, request: CompletionRequest, caller: Caller) -> Completion:
        """Continue prompts, as a whole."""
        job = await self._guided(await self._completion(request, caller), request)
        return completion_answer(*await self._choices(job, caller), self._texts)

    async def stream_complete(
        self, request: CompletionRequest, caller: Caller
    ) -> AsyncGenerator[Completion]:
        """Continue prompts, piece by piece."""
        job = await self._guided(await self._completion(request, caller), request)
        async with self._outputs(job, caller) as (job, outputs):
            chunks = completion_chunks(job, outputs, self._texts, with_usage=_with_usage(request))
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk

    # --- from request to job: tokenising takes time, so these run away from the event loop --------

    async def _chat(self, request: ChatCompletionRequest, caller: Caller) -> Job:
        asked = request.context_compression
        if asked is None:
            return await asyncio.to_thread(self._chat_job, request, caller)

        def count(cut: Sequence[ChatMessage]) -> int:
            return len(self._prompts.tokens(request.model_copy(update={"messages": list(cut)})))

        prompt = cuttable_chat(request.messages, count)
        cut = await self._compressor.compress(prompt, asked, caller)
        request = request.model_copy(update={"messages": with_texts(request.messages, cut.texts)})
        job = await asyncio.to_thread(self._chat_job, request, caller)
        return job.compressed([cut])

    async def _completion(self, request: CompletionRequest, caller: Caller) -> Job:
        asked = request.context_compression
        if asked is None:
            return await asyncio.to_thread(self._completion_job, request, caller)
        tokenizer, vocabulary = self._loaded.tokenizer, self._loaded.vocabulary_size
        cuts, prompts = [], []
        for text in map(str, request.prompts):
            prompt = cuttable_prompt(
                text, lambda cut: len(text_tokens(tokenizer, cut, vocabulary, "prompt"))
            )
            cuts.append(await self._compressor.compress(prompt, asked, caller))
            prompts.append(cuts[-1].texts[0] + split_tail(text)[1])
        request = request.model_copy(update={"prompt": prompts})
        job = await asyncio.to_thread(self._completion_job, request, caller)
        return job.compressed(cuts)

    def _chat_job(self, request: ChatCompletionRequest, caller: Caller) -> Job:
        calls = self._prompts.calls(request)
        tokens = self._prompts.tokens(request)
        logprobs = (request.top_logprobs or 0) if request.logprobs else None
        params = self._params(request, logprobs)
        limit = self._limit(len(tokens), request.output_limit, None)
        sequence = _sequence(request, caller, tokens, params, limit)
        if calls is not None:
            shown = self._prompts.shown_tokens(calls.syntax)
            sequence = replace(sequence, shown_tokens=shown)
        return Job(
            id=Job.new_id("chatcmpl"),
            created=Job.now(),
            model=request.model,
            sequences=tuple(
                replace(sequence, index=choice, choice=choice) for choice in range(request.n or 1)
            ),
            prompt_tokens=len(tokens),
            calls=calls,
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

    async def _guided(self, job: Job, request: SamplingFields) -> Job:
        """The job with the grammar that its request asks for, if any."""
        source = None if job.calls is None else job.calls.grammar
        if request.guides:
            source = await asyncio.to_thread(wanted_grammar, request)
        if source is None:
            return job
        grammar = await self.grammars.compile(source)
        sequences = tuple(replace(sequence, grammar=grammar) for sequence in job.sequences)
        return replace(job, sequences=sequences)

    # --- from job to tokens -----------------------------------------------------------------------

    async def _choices(self, job: Job, caller: Caller) -> tuple[Job, list[Choice]]:
        choices = [Choice() for _ in job.sequences]
        async with self._outputs(job, caller) as (job, outputs):
            async for output in outputs:
                choices[output.index].take(output)
        return job, choices

    @asynccontextmanager
    async def _outputs(
        self, job: Job, caller: Caller
    ) -> AsyncIterator[tuple[Job, AsyncIterator[TokenOutput]]]:
        """Run a job, from then on with its timelines; leaving the block ends what still runs."""
        async with (
            self._adapted(job) as sequences,
            self._engine.generate(sequences, caller.arrived_s) as outputs,
        ):
            try:
                yield replace(job, timelines=tuple(outputs.timelines)), outputs
            finally:
                caller.trace.generated(job.prompt_tokens, outputs.timelines)

    @asynccontextmanager
    async def _adapted(self, job: Job) -> AsyncIterator[Sequence[SequenceRequest]]:
        """The sequences of a job with the adapter that its model names, held inside the block."""
        if self.adapters is None:
            yield job.sequences
            return
        async with self.adapters.hold(job.model) as adapter:
            if adapter is None:
                yield job.sequences
            else:
                yield [replace(sequence, adapter=adapter) for sequence in job.sequences]


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
