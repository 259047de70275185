"""The messages of a request as chat templates take them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tidegate.protocol.openai import ChatMessage, PastToolCall
from tidegate_runtime.errors import RequestRefused


def template_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Each message as an object. `developer` is today's name of `system`, which templates know; the
    arguments of a call are an object, as transformers has it; a tool's result has its name.

    Raises RequestRefused for arguments that are none, and for a result of no call.
    """
    functions: dict[str, str] = {}
    made = []
    for index, message in enumerate(messages):
        role = "system" if message.role == "developer" else message.role
        shown: dict[str, Any] = {"role": role, "content": message.text}
        if message.tool_calls:
            shown["tool_calls"] = [
                _call(call, f"messages.{index}.tool_calls.{place}.function.arguments")
                for place, call in enumerate(message.tool_calls)
            ]
            functions.update({call.id: call.function.name for call in message.tool_calls})
        if message.tool_call_id is not None:
            shown["tool_call_id"] = message.tool_call_id
            shown["name"] = _answered(message.tool_call_id, functions, index)
        if message.name is not None:
            shown["name"] = message.name
        made.append(shown)
    return made


def _call(call: PastToolCall, param: str) -> dict[str, Any]:
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise RequestRefused(
            f"{param}: {call.function.arguments[:80]!r} is no JSON object; send the call back as "
            "it came.",
            param=param,
            code="invalid_value",
        )
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _answered(call_id: str, functions: dict[str, str], index: int) -> str:
    if call_id not in functions:
        raise RequestRefused(
            f"messages.{index}.tool_call_id: {call_id[:80]!r} is the id of no call before it; send "
            "the assistant's message with its tool_calls too.",
            param=f"messages.{index}.tool_call_id",
            code="invalid_value",
        )
    return functions[call_id]
