"""From texts to token ids, and their bounds within the model's context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidegate_runtime.errors import RequestRefused


def text_tokens(
    tokenizer: Any, prompt: str | Sequence[int], vocabulary_size: int, param: str
) -> list[int]:
    """A text tokenised with the model's special tokens, or ids checked against the vocabulary.

    Raises RequestRefused.
    """
    if isinstance(prompt, str):
        tokens = [int(token) for token in tokenizer(prompt)["input_ids"]]
        if not tokens:
            raise RequestRefused(
                f"{param}: {prompt[:40]!r} has no token for this model; send some text.",
                param=param,
                code="empty_prompt",
            )
        return tokens
    for token in prompt:
        if not 0 <= token < vocabulary_size:
            raise RequestRefused(
                f"{param}: token id {token} is not in the vocabulary 0..{vocabulary_size - 1}.",
                param=param,
                code="invalid_token_id",
            )
    return list(prompt)


def check_length(tokens: int, context: int, param: str, what: str) -> None:
    """Refuse what is longer than the model's context: cut, it would mean something else. Raises
    RequestRefused.
    """
    if tokens > context:
        raise RequestRefused(
            f"This model's maximum context length is {context} tokens, but {what} has {tokens}. "
            "Split it into shorter ones.",
            param=param,
            code="context_length_exceeded",
        )


def output_limit(
    prompt_tokens: int, wanted: int | None, silent: int | None, *, context: int, cache: int
) -> int:
    """How many tokens may be generated.

    `wanted` is the request's word and must fit. Without it, `silent` (None for as many as there is
    room for) is cut to what the context and the cache leave. Raises RequestRefused.
    """
    room = context - prompt_tokens
    if room < (wanted or 1):
        what = f"{wanted} for the completion" if wanted else "at least 1 for the completion"
        raise RequestRefused(
            f"This model's maximum context length is {context} tokens, but you asked for "
            f"{prompt_tokens + (wanted or 1)} tokens ({prompt_tokens} in the prompt, {what}). "
            "Shorten the prompt or lower max_tokens.",
            param="messages" if silent is None else "prompt",
            code="context_length_exceeded",
        )
    if wanted is not None:
        return wanted
    room = max(1, min(room, cache - prompt_tokens))
    return room if silent is None else min(room, silent)
