"""The whole answer that a streamed one amounts to: what the replica would have said unstreamed.

A caller who is not there while it is generated is answered whole, and yet somebody may want to read
along. So the replica is asked to stream, and what it streams is put together again, through the
same shapes that it answers with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json, to_json

from tidegate.protocol.openai import (
    AssistantMessage,
    ChatChoice,
    ChatCompletion,
    ChoiceLogprobs,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    FunctionCall,
    ToolCall,
)

STREAMED = frozenset({"/v1/chat/completions", "/v1/completions"})
"""The endpoints that can answer in pieces."""


def asking_stream(body: bytes) -> bytes:
    """The same request, asked to be answered in pieces that end with the usage."""
    document = from_json(body)
    return to_json({**document, "stream": True, "stream_options": {"include_usage": True}})


@dataclass
class _Call:
    """One call of a tool, as far as it has come."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    def take(self, piece: dict[str, Any]) -> None:
        function = piece.get("function") or {}
        self.id = piece.get("id") or self.id
        self.name = function.get("name") or self.name
        self.arguments.append(function.get("arguments") or "")

    def whole(self) -> ToolCall:
        function = FunctionCall(name=self.name, arguments="".join(self.arguments))
        return ToolCall(id=self.id, function=function)


@dataclass
class _Choice:
    """One choice, as far as it has come."""

    texts: list[str] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    finish_reason: str = "stop"
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    """As each piece has them."""

    def take(self, piece: dict[str, Any]) -> None:
        said = piece.get("delta") or piece
        self.texts.append(said.get("content") or said.get("text") or "")
        for call in said.get("tool_calls") or []:
            self.calls.setdefault(call.get("index") or 0, _Call()).take(call)
        self.finish_reason = piece.get("finish_reason") or self.finish_reason
        if piece.get("logprobs"):
            self.logprobs.append(piece["logprobs"])

    @property
    def text(self) -> str:
        return "".join(self.texts)


@dataclass
class Assembly:
    """Give it every chunk of a stream in order; then `answer` is the whole."""

    path: str
    head: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] | None = None
    choices: dict[int, _Choice] = field(default_factory=dict)

    def take(self, chunk: dict[str, Any]) -> None:
        """Add a chunk."""
        self.head = self.head or {name: chunk.get(name) for name in ("id", "created", "model")}
        self.usage = chunk.get("usage") or self.usage
        for piece in chunk.get("choices") or []:
            self.choices.setdefault(piece.get("index") or 0, _Choice()).take(piece)

    def answer(self) -> bytes:
        """The whole answer. Raises pydantic.ValidationError when the chunks were none of its."""
        ordered = sorted(self.choices.items())
        is_chat = self.path == "/v1/chat/completions"
        shown = [(_chat if is_chat else _text)(index, choice) for index, choice in ordered]
        shape = ChatCompletion if is_chat else Completion
        whole = shape.model_validate({**self.head, "choices": shown, "usage": self.usage})
        return whole.model_dump_json().encode()


def _chat(index: int, choice: _Choice) -> ChatChoice:
    tokens = [token for piece in choice.logprobs for token in piece.get("content") or []]
    calls = [call.whole() for _, call in sorted(choice.calls.items())]
    content = None if calls and not choice.text else choice.text
    return ChatChoice.model_validate(
        {
            "index": index,
            "message": AssistantMessage(content=content, tool_calls=calls or None),
            "logprobs": ChoiceLogprobs.model_validate({"content": tokens}) if tokens else None,
            "finish_reason": choice.finish_reason,
        }
    )


def _text(index: int, choice: _Choice) -> CompletionChoice:
    return CompletionChoice.model_validate(
        {
            "index": index,
            "text": choice.text,
            "logprobs": _joined(choice.logprobs) if choice.logprobs else None,
            "finish_reason": choice.finish_reason,
        }
    )


def _joined(pieces: list[dict[str, Any]]) -> CompletionLogprobs:
    """One list of tokens, whose offsets count from the beginning of the first piece."""
    shown = CompletionLogprobs(tokens=[], token_logprobs=[], top_logprobs=[], text_offset=[])
    offset = 0
    for piece in map(CompletionLogprobs.model_validate, pieces):
        shown.token_logprobs += piece.token_logprobs
        for token in piece.tokens:
            shown.tokens.append(token)
            shown.text_offset.append(offset)
            offset += len(token)
        if shown.top_logprobs is not None and piece.top_logprobs is not None:
            shown.top_logprobs += piece.top_logprobs
    return shown
