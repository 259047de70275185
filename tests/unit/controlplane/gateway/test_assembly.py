"""What a stream of chunks amounts to."""

from __future__ import annotations

import json
from typing import Any

from tidegate_controlplane.gateway.assembly import Assembly


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "c", "created": 1, "model": "m", "choices": [choice]}


def test_calls_that_came_in_pieces_are_whole() -> None:
    def piece(index: int, **fields: Any) -> dict[str, Any]:
        return chunk({"tool_calls": [{"index": index, **fields}]})

    assembly = Assembly("/v1/chat/completions")
    for part in (
        chunk({"role": "assistant", "content": ""}),
        piece(0, id="call_1", type="function", function={"name": "weather", "arguments": ""}),
        piece(0, function={"arguments": '{"city": '}),
        piece(1, id="call_2", type="function", function={"name": "now", "arguments": ""}),
        piece(0, function={"arguments": '"Bern"}'}),
        piece(1, function={"arguments": "{}"}),
        chunk({}, "tool_calls"),
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
    ):
        assembly.take(part)
    choice = json.loads(assembly.answer())["choices"][0]
    calls = [("call_1", "weather", '{"city": "Bern"}'), ("call_2", "now", "{}")]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id_, name, arguments in calls
    ]
