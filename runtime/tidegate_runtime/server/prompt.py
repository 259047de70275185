"""From messages and texts to token ids, within the model's context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jinja2

from tidegate.protocol.openai import ChatMessage
from tidegate_runtime.errors import RequestRefused


def chat_tokens(tokenizer: Any, messages: Sequence[ChatMessage]) -> list[int]:
    """The model's chat template applied to messages, ready for its answer.

    `developer` is today's name of `system`, which templates know. Raises RequestRefused when there
    is no template, or when it does not take these messages.
    """
    if not tokenizer.chat_template:
        raise RequestRefused(
            "This model has no chat template; send a plain prompt to /v1/completions instead.",
            param="messages",
            code="no_chat_template",
        )
    try:
        tokens = tokenizer.apply_chat_template(
            [_as_template_message(message) for message in messages],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
    except (jinja2.TemplateError, TypeError, ValueError, LookupError) as error:
        raise RequestRefused(
            f"The model's chat template does not take these messages: {error}.",
            param="messages",
            code="chat_template_error",
        ) from error
    return [int(token) for token in tokens]


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


def _as_template_message(message: ChatMessage) -> dict[str, str]:
    role = "system" if message.role == "developer" else message.role
    made = {"role": role, "content": message.text}
    if message.name is not None:
        made["name"] = message.name
    return made
