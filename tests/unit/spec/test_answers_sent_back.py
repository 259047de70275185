"""A conversation goes on with the answer before, as the clients of OpenAI keep it."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.chat import ChatCompletion as TheirCompletion
from openai.types.chat import ParsedChatCompletionMessage
from pydantic import BaseModel, ValidationError

from tidegate.protocol.openai import AssistantMessage, ChatMessage, FunctionCall, ToolCall


class City(BaseModel):
    name: str


CALL = ToolCall(id="call_1", function=FunctionCall(name="weather", arguments='{"city": "Oslo"}'))


def received(message: AssistantMessage) -> Any:
    """The message of our answer, as the `openai` package reads it."""
    choice = {"index": 0, "finish_reason": "stop", "message": message.model_dump()}
    answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "smol"}
    return TheirCompletion.model_validate({**answer, "choices": [choice]}).choices[0].message


@pytest.mark.parametrize(
    "message", [AssistantMessage(content="Paris"), AssistantMessage(tool_calls=[CALL])]
)
def test_an_answer_that_a_client_dumps_whole_may_be_sent_back(message: AssistantMessage) -> None:
    back = ChatMessage.model_validate(received(message).model_dump())
    assert back.content == message.content
    assert [call.function.name for call in back.tool_calls or []] == [
        call.function.name for call in message.tool_calls or []
    ]


def test_an_answer_that_a_client_parsed_may_be_sent_back() -> None:
    content = '{"name": "Oslo"}'
    parsed = ParsedChatCompletionMessage[City](
        role="assistant", content=content, parsed=City(name="Oslo")
    )
    assert ChatMessage.model_validate(parsed.model_dump(mode="json")).content == content


def test_a_call_that_a_client_put_together_from_a_stream_may_be_sent_back() -> None:
    call = CALL.model_dump() | {"index": 0}
    call["function"]["parsed_arguments"] = {"city": "Oslo"}
    back = ChatMessage.model_validate({"role": "assistant", "content": "", "tool_calls": [call]})
    assert [each.function.arguments for each in back.tool_calls or []] == ['{"city": "Oslo"}']


@pytest.mark.parametrize(
    "said",
    [
        {"annotations": [{"type": "url_citation"}]},
        {"audio": {"id": "audio_1"}},
        {"function_call": {"name": "weather", "arguments": "{}"}},
    ],
)
def test_what_would_say_something_and_is_not_read_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(said))):
        ChatMessage.model_validate({"role": "assistant", "content": "hi", **said})


def test_only_an_answer_is_parsed() -> None:
    with pytest.raises(ValidationError, match="parsed: a message of role 'user'"):
        ChatMessage.model_validate({"role": "user", "content": "hi", "parsed": {"name": "Oslo"}})
