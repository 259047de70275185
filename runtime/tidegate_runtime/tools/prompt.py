"""Tools for a model whose chat template knows none: told by a system message, in Hermes' form.

SmolLM2 is such a model: its authors train it on a system message of this kind and on calls between
these tags, but its template says nothing of them (docs/decisions/113).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tidegate_runtime.tools.syntax import HERMES

_INSTRUCTIONS = """\
You can call functions to answer the user. These are their signatures, one JSON object on a line:
<tools>
{tools}
</tools>
To call a function, write a JSON object with its name and its arguments between tags, and nothing \
else; for several calls, write several:
<tool_call>
{{"name": "the function's name", "arguments": {{"an argument": "its value"}}}}
</tool_call>
Results come back between <tool_response> tags. When no function is of use, answer in words."""

Message = Mapping[str, Any]


def as_plain_messages(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The same conversation in messages of system, user and assistant that are text alone;
    what tools said are the user's words, in one message where it follows each other.
    """
    plain: list[dict[str, Any]] = []
    previous = ""
    for message in messages:
        if message["role"] != "tool":
            plain.append({**message, "content": _with_calls(message)})
            plain[-1].pop("tool_calls", None)
        elif previous == "tool":
            plain[-1]["content"] += f"\n{_result(message)}"
        else:
            plain.append({"role": "user", "content": _result(message)})
        previous = message["role"]
    if tools:
        _add_instructions(plain, tools)
    return plain


def _with_calls(message: Message) -> str:
    calls = [
        f"{HERMES.opening}\n{_json(call['function'])}\n{HERMES.closing}"
        for call in message.get("tool_calls", ())
    ]
    return "\n".join([message["content"], *calls] if message["content"] else calls)


def _result(message: Message) -> str:
    return f"<tool_response>\n{message['content']}\n</tool_response>"


def _add_instructions(plain: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]]) -> None:
    text = _INSTRUCTIONS.format(tools="\n".join(_json(tool["function"]) for tool in tools))
    if plain and plain[0]["role"] == "system":
        own = plain[0]["content"]
        plain[0] = {**plain[0], "content": f"{own}\n\n{text}" if own else text}
    else:
        plain.insert(0, {"role": "system", "content": text})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
