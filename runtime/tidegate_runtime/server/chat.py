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
    ChatFinishReason,
    ChoiceLogprobs,
    TokenLogprob,
    TopLogprob,
)
from tidegate_runtime.engine.output import TokenOutput
from tidegate_runtime.engine.sequence import FinishReason, TokenLogprobs
from tidegate_runtime.server.job import Choice, Job
from tidegate_runtime.server.token_text import TokenText
from tidegate_runtime.server.tool_calls import MessageDeltas, message_of


def chat_answer(job: Job, choices: Sequence[Choice], texts: TokenText) -> ChatCompletion:
    """The whole answer."""
    return ChatCompletion(
        id=job.id,
        created=job.created,
        model=job.model,
        choices=[
            _choice(index, choice, message_of(choice.text, job.calls), texts)
            for index, choice in enumerate(choices)
        ],
        usage=job.usage(sum(choice.tokens for choice in choices)),
    )


async def chat_chunks(
    job: Job, outputs: AsyncIterable[TokenOutput], texts: TokenText, *, with_usage: bool
) -> AsyncGenerator[ChatCompletionChunk]:
    """The answer in pieces: per choice its role, what it says and calls, its end; then the usage if
    wanted.
    """
    begun: dict[int, MessageDeltas | None] = {}
    tokens = 0
    async for output in outputs:
        tokens += output.token is not None
        if output.index not in begun:
            begun[output.index] = MessageDeltas(job.calls) if job.calls else None
            role = ChatDelta(role="assistant", content="")
            yield _chunk(job, output.index, role, with_usage=with_usage)
        message = begun[output.index]
        logprobs = _logprobs([output.logprobs] if output.logprobs else [], texts)
        for delta in _deltas(output, message):
            yield _chunk(job, output.index, delta, logprobs=logprobs, with_usage=with_usage)
            logprobs = None
        if output.finish_reason is not None:
            end = _chunk(job, output.index, ChatDelta(), with_usage=with_usage)
            has_called = message is not None and message.has_called
            end.choices[0].finish_reason = _reason(output.finish_reason, has_called=has_called)
            yield end
    if with_usage:
        yield _frame(job, [], {"usage": job.usage(tokens)})


def _deltas(output: TokenOutput, message: MessageDeltas | None) -> list[ChatDelta]:
    """What one token says; log probabilities need a delta also where it says nothing."""
    if message is not None:
        deltas = message.push(output.text, is_last=output.finish_reason is not None)
    else:
        deltas = [ChatDelta(content=output.text)] if output.text else []
    return deltas or ([ChatDelta(content="")] if output.logprobs is not None else [])


def _choice(index: int, choice: Choice, message: AssistantMessage, texts: TokenText) -> ChatChoice:
    return ChatChoice(
        index=index,
        message=message,
        logprobs=_logprobs(choice.logprobs, texts),
        finish_reason=_reason(choice.finish_reason, has_called=bool(message.tool_calls)),
    )


def _reason(reason: FinishReason, *, has_called: bool) -> ChatFinishReason:
    """An answer that was cut has been cut, also when it calls."""
    return "tool_calls" if has_called and reason == "stop" else reason


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
