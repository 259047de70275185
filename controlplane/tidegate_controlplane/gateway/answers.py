"""The texts in a replica's answer, whole or streamed, for comparing two answers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from tidegate_controlplane.domain.likeness import Reply

TAIL_BYTES = 64
"""In so many last bytes of a stream its end can be seen."""


def is_finished(tail: bytes) -> bool:
    """Whether a stream ended as it should: a replica that fails says no `[DONE]`."""
    return b"data: [DONE]" in tail[-TAIL_BYTES:]


def replies_of(answer: bytes) -> list[Reply]:
    """The choices of an answer in order; empty when there is no text in it."""
    texts: defaultdict[int, str] = defaultdict(str)
    finishes: dict[int, str | None] = {}
    for chunk in _objects(answer):
        for choice in chunk.get("choices") or []:
            index = choice.get("index") or 0
            said = choice.get("message") or choice.get("delta") or {}
            texts[index] += (choice.get("text") or said.get("content") or "") + _called(said)
            finishes[index] = choice.get("finish_reason") or finishes.get(index)
    return [Reply(texts[index], finishes[index]) for index in sorted(texts)]


def is_greedy(body: bytes) -> bool:
    """Whether a request asks for the likeliest tokens, so that its answer can be foretold."""
    asked = json.loads(body)
    return bool(asked.get("temperature") == 0 or asked.get("top_k") == 1)


def _called(said: dict[str, Any]) -> str:
    """The calls of tools in a message or a piece of one, as text."""
    functions = [call.get("function") or {} for call in said.get("tool_calls") or []]
    return "".join(
        (function.get("name") or "") + (function.get("arguments") or "") for function in functions
    )


def _objects(answer: bytes) -> Iterator[dict[str, Any]]:
    """The one JSON object of a whole answer, or one for each event of a stream."""
    lines = answer.splitlines()
    events = [line.removeprefix(b"data:") for line in lines if line.startswith(b"data:")]
    for text in events or [answer]:
        with suppress(ValueError):
            found = json.loads(text)
            if isinstance(found, dict):
                yield found
