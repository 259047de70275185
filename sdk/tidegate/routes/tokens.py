"""Texts and conversations as tokens of a model, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from tidegate.flow.pages import read
from tidegate.flow.steps import Flow, Request, ask
from tidegate.protocol.tokenize import (
    DETOKENIZE,
    TOKENIZE,
    DetokenizeResponse,
    TokenizeResponse,
)
from tidegate.routes.generate import Messages, conversation


class Tokenizing(TypedDict, total=False):
    """What is added to the text; `protocol.tokenize` says what each field means."""

    add_special_tokens: bool
    add_generation_prompt: bool
    tools: Sequence[Mapping[str, Any]]
    tool_choice: str | Mapping[str, Any]
    return_token_strs: bool


def tokenize(
    model: str, text: Messages, options: Mapping[str, Any], timeout_s: float | None
) -> Flow[TokenizeResponse]:
    given = {"prompt": text} if isinstance(text, str) else {"messages": conversation(text)}
    body = {"model": model, **given, **options}
    reply = yield from ask(Request("POST", TOKENIZE, json=body, timeout_s=timeout_s))
    return read(reply, TokenizeResponse)


def detokenize(model: str, tokens: Sequence[int], timeout_s: float | None) -> Flow[str]:
    body = {"model": model, "tokens": list(tokens)}
    reply = yield from ask(Request("POST", DETOKENIZE, json=body, timeout_s=timeout_s))
    return read(reply, DetokenizeResponse).prompt
