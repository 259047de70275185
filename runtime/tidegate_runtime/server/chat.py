"""Tokens in the shape of OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Sequence

from tidegate.protocol.openai import (
    AssistantMessage,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChoiceLogprobs,
    TokenLogprob,
    TopLogprob,
)
from tidegate_runtime.engine.output import TokenOutput
from tidegate_runtime.engine.sequence import TokenLogprobs
from tidegate_runtime.server.job import Choice, Job
from tidegate_runtime.server.token_text import TokenText


def chat_answer(job: Job, choices: Sequence[Choice], texts: TokenText) -> ChatCompletion:
    """The whole answer."""
    return ChatCompletion(
        id=job.id,
        created=job.created,
        model=job.model,
        choices=[
            ChatChoice(
                index=index,
                message=AssistantMessage(content=choice.text),
                logprobs=_logprobs(choice.logprobs, texts),
                finish_reason=choice.finish_reason,
            )
            for index, choice in enumerate(choices)
        ],
        usage=job.usage(sum(choice.tokens for choice in choices)),
    )


async def chat_chunks(
    job: Job, outputs: AsyncIterable[TokenOutput], texts: TokenText, *, with_usage: bool
) -> AsyncGenerator[ChatCompletionChunk]:
    """The answer in pieces: per choice its role, its text, its end; then the usage if wanted."""
    begun: set[int] = set()
    tokens = 0
    async for output in outputs:
        tokens += output.token is not None
        if output.index not in begun:
            begun.add(output.index)
            role = ChatDelta(role="assistant", content="")
            yield _chunk(job, output.index, role, with_usage=with_usage)
        if output.text or output.logprobs is not None:
            yield _chunk(
                job,
                output.index,
                ChatDelta(content=output.text),
                logprobs=_logprobs([output.logprobs] if output.logprobs else [], texts),
                with_usage=with_usage,
            )
        if output.finish_reason is not None:
            end = _chunk(job, output.index, ChatDelta(), with_usage=with_usage)
            end.choices[0].finish_reason = output.finish_reason
            yield end
    if with_usage:
        yield _frame(job, [], {"usage": job.usage(tokens)})


def _chunk(
    job: Job,
    index: int,
    delta: ChatDelta,
    *,
    logprobs: ChoiceLogprobs | None = None,
    with_usage: bool,
) -> ChatCompletionChunk:
    choice = ChatChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=None)
    return _frame(job, [choice], {"usage": None} if with_usage else {})


def _frame(
    job: Job, choices: list[ChatChunkChoice], usage: dict[str, object]
) -> ChatCompletionChunk:
    # The object is named although it is the default: only what was set is sent.
    return ChatCompletionChunk(
        id=job.id,
        object="chat.completion.chunk",
        created=job.created,
        model=job.model,
        choices=choices,
        system_fingerprint=None,
        **usage,
    )


def _logprobs(found: Sequence[TokenLogprobs], texts: TokenText) -> ChoiceLogprobs | None:
    if not found:
        return None
    return ChoiceLogprobs(
        content=[
            TokenLogprob(
                token=texts.text(item.token),
                logprob=item.logprob,
                bytes=list(texts.bytes(item.token)),
                top_logprobs=[
                    TopLogprob(
                        token=texts.text(token), logprob=logprob, bytes=list(texts.bytes(token))
                    )
                    for token, logprob in item.top
                ],
            )
            for item in found
        ],
        refusal=None,
    )
