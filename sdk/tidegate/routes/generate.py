"""The data plane: chat, text completion, embeddings, reranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from tidegate.answers import ChatAnswer, ChatChunk, Embeddings, Ranks, Scores, TextAnswer
from tidegate.flow.pages import read
from tidegate.flow.sse import events
from tidegate.flow.steps import Emitting, Flow, Request, ask
from tidegate.protocol.openai import ChatMessage

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RERANK, SCORE = "/v1/rerank", "/v1/score"

Message = Mapping[str, Any] | ChatMessage
Messages = str | Sequence[Message]
"""A conversation; text alone is one message of the user."""


class Sampling(TypedDict, total=False):
    """How the next token is chosen, and when to stop; the server refuses what it does not honour.

    `protocol.openai` says what each field means and its bounds.
    """

    n: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logit_bias: dict[str, float]
    seed: int
    stop: str | list[str]
    ignore_eos: bool
    min_tokens: int
    max_tokens: int
    guided_json: dict[str, Any]
    guided_regex: str
    guided_choice: list[str]
    guided_grammar: str
    context_compression: Mapping[str, Any]
    user: str


class ChatSampling(Sampling, total=False):
    """What a chat takes besides."""

    response_format: dict[str, Any]
    max_completion_tokens: int
    logprobs: bool
    top_logprobs: int
    tools: Sequence[Mapping[str, Any]]
    tool_choice: str | Mapping[str, Any]
    parallel_tool_calls: bool


class StreamSampling(ChatSampling, total=False):
    """What a streamed chat takes besides; `{"include_usage": True}` ends it with a usage chunk."""

    stream_options: dict[str, bool]


class TextSampling(Sampling, total=False):
    """What a text completion takes besides."""

    logprobs: int
    echo: bool


def conversation(messages: Messages) -> list[dict[str, Any]]:
    """The messages as JSON."""
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    return [_message(message) for message in messages]


def chat(
    model: str, messages: Messages, sampling: Mapping[str, Any], timeout_s: float | None
) -> Flow[ChatAnswer]:
    body = {"model": model, "messages": conversation(messages), **sampling}
    reply = yield from ask(Request("POST", CHAT, json=body, timeout_s=timeout_s))
    return read(reply, ChatAnswer)


def stream(
    model: str, messages: Messages, sampling: Mapping[str, Any], timeout_s: float | None
) -> Emitting[ChatChunk]:
    body = {"model": model, "messages": conversation(messages), "stream": True, **sampling}
    return events(Request("POST", CHAT, json=body, stream=True, timeout_s=timeout_s), ChatChunk)


def complete(
    model: str, prompt: str | list[str], sampling: Mapping[str, Any], timeout_s: float | None
) -> Flow[TextAnswer]:
    body = {"model": model, "prompt": prompt, **sampling}
    reply = yield from ask(Request("POST", COMPLETIONS, json=body, timeout_s=timeout_s))
    return read(reply, TextAnswer)


def embed(
    model: str, inputs: str | list[str], dimensions: int | None, timeout_s: float | None
) -> Flow[Embeddings]:
    body: dict[str, Any] = {"model": model, "input": inputs}
    if dimensions is not None:
        body["dimensions"] = dimensions
    reply = yield from ask(Request("POST", EMBEDDINGS, json=body, timeout_s=timeout_s))
    return read(reply, Embeddings)


def rerank(
    model: str, query: str, documents: list[str], top_n: int | None, timeout_s: float | None
) -> Flow[Ranks]:
    body: dict[str, Any] = {"model": model, "query": query, "documents": documents}
    if top_n is not None:
        body["top_n"] = top_n
    reply = yield from ask(Request("POST", RERANK, json=body, timeout_s=timeout_s))
    return read(reply, Ranks)


def score(
    model: str, text_1: str | list[str], text_2: str | list[str], timeout_s: float | None
) -> Flow[Scores]:
    body = {"model": model, "text_1": text_1, "text_2": text_2}
    reply = yield from ask(Request("POST", SCORE, json=body, timeout_s=timeout_s))
    return read(reply, Scores)


def _message(message: Message) -> dict[str, Any]:
    if isinstance(message, ChatMessage):
        return message.model_dump(mode="json", exclude_none=True)
    return dict(message)
