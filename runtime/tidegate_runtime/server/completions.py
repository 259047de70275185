"""Tokens in the shape of OpenAI's (legacy) completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Sequence

from tidegate.protocol.openai import Completion, CompletionChoice, CompletionLogprobs
from tidegate_runtime.engine.output import TokenOutput
from tidegate_runtime.engine.sequence import TokenLogprobs
from tidegate_runtime.server.job import Choice, Job
from tidegate_runtime.server.token_text import TokenText


def completion_answer(job: Job, choices: Sequence[Choice], texts: TokenText) -> Completion:
    """The whole answer."""
    made = []
    for index, choice in enumerate(choices):
        echo = job.prompt_texts[index] if job.prompt_texts else None
        prompt = job.sequences[index].prompt if echo is not None else ()
        made.append(
            CompletionChoice(
                index=index,
                text=(echo or "") + choice.text,
                logprobs=_logprobs(prompt, choice.prompt_logprobs, choice.logprobs, texts),
                finish_reason=choice.finish_reason,
            )
        )
    return Completion(
        id=job.id,
        created=job.created,
        model=job.model,
        choices=made,
        usage=job.usage(sum(choice.tokens for choice in choices)),
    )


async def completion_chunks(
    job: Job, outputs: AsyncIterable[TokenOutput], texts: TokenText, *, with_usage: bool
) -> AsyncGenerator[Completion]:
    """The answer in pieces; an echoed prompt comes with the first piece of its choice."""
    begun: set[int] = set()
    tokens = 0
    usage: dict[str, object] = {"usage": None} if with_usage else {}
    async for output in outputs:
        tokens += output.token is not None
        text = output.text
        prompt: tuple[int, ...] = ()
        if output.index not in begun and job.prompt_texts:
            text = job.prompt_texts[output.index] + text
            prompt = job.sequences[output.index].prompt
        begun.add(output.index)
        if text or output.logprobs is not None or output.finish_reason is not None:
            own = [output.logprobs] if output.logprobs is not None else []
            choice = CompletionChoice(
                index=output.index,
                text=text,
                logprobs=_logprobs(prompt, output.prompt_logprobs, own, texts),
                finish_reason=output.finish_reason,
            )
            yield _frame(job, [choice], usage)
    if with_usage:
        yield _frame(job, [], {"usage": job.usage(tokens)})


def _frame(job: Job, choices: list[CompletionChoice], usage: dict[str, object]) -> Completion:
    # The object is named although it is the default: only what was set is sent.
    return Completion(
        id=job.id,
        object="text_completion",
        created=job.created,
        model=job.model,
        choices=choices,
        system_fingerprint=None,
        **usage,
    )


def _logprobs(
    prompt: Sequence[int],
    of_prompt: Sequence[TokenLogprobs],
    generated: Sequence[TokenLogprobs],
    texts: TokenText,
) -> CompletionLogprobs | None:
    """The echoed prompt (whose first token nothing predicts) and the generated tokens.

    Offsets count characters from the start of this piece of text. None when none were asked for.
    """
    if not generated and not of_prompt:
        return None
    shown = CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
    first = [None] if prompt else []
    offset = 0
    for token, found in zip(
        [*prompt, *(item.token for item in generated)],
        [*first, *of_prompt, *generated],
        strict=True,
    ):
        text = texts.text(token)
        shown.tokens.append(text)
        shown.token_logprobs.append(None if found is None else found.logprob)
        if shown.top_logprobs is not None:
            shown.top_logprobs.append(None if found is None else _top(found, texts))
        shown.text_offset.append(offset)
        offset += len(text)
    return shown


def _top(found: TokenLogprobs, texts: TokenText) -> dict[str, float]:
    """The likeliest tokens, and the chosen one even when it is not among them."""
    top = {texts.text(token): logprob for token, logprob in found.top}
    return top | {texts.text(found.token): found.logprob}
