"""Tools through the gateway: the unmodified `openai` client, and an agent of LangChain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from tests.e2e.platform import Platform

CITIES = ["Bern", "Lima", "Oslo"]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city now.",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": CITIES}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
ASKED: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]


@pytest.fixture(scope="module")
def client(platform: Platform, realtime: str) -> Iterator[openai.OpenAI]:
    with platform.openai() as client:
        yield client


def test_a_required_call_is_made_and_its_result_is_answered(
    client: openai.OpenAI, realtime: str
) -> None:
    terms: Any = {"model": realtime, "tools": [WEATHER], "temperature": 0, "max_tokens": 48}
    first = client.chat.completions.create(
        messages=ASKED, tool_choice="required", parallel_tool_calls=False, **terms
    ).choices[0]
    assert (first.finish_reason, first.message.content) == ("tool_calls", None)
    assert first.message.tool_calls is not None
    (call,) = first.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "weather"
    # Which city so small a model chooses says nothing; that it is one of them does.
    assert json.loads(call.function.arguments)["city"] in CITIES
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain, 7 degrees"}
    second = client.chat.completions.create(
        messages=[*ASKED, first.message, result], tool_choice="none", **terms
    ).choices[0]
    assert second.message.content
    assert second.message.tool_calls is None


def test_a_streamed_call_is_the_same_call_in_pieces(client: openai.OpenAI, realtime: str) -> None:
    stream = client.chat.completions.create(
        model=realtime,
        messages=ASKED,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        temperature=0,
        max_tokens=48,
        stream=True,
    )
    choices = [chunk.choices[0] for chunk in stream]
    pieces = [piece for choice in choices for piece in choice.delta.tool_calls or []]
    assert (pieces[0].index, pieces[0].type, pieces[0].function.name) == (0, "function", "weather")
    assert all(piece.id is None and piece.function.name is None for piece in pieces[1:])
    assert len(pieces) > 2
    assert json.loads("".join(piece.function.arguments for piece in pieces))["city"] in CITIES
    assert choices[-1].finish_reason == "tool_calls"


def test_tools_that_need_not_be_called_leave_the_answer_free(
    client: openai.OpenAI, realtime: str
) -> None:
    answer = client.chat.completions.create(
        model=realtime, messages=ASKED, tools=[WEATHER], temperature=0, max_tokens=24
    ).choices[0]
    assert answer.message.content or answer.message.tool_calls


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}},
         "tool_choice"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [WEATHER], "response_format": {"type": "json_object"}}, "response_format"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(
    client: openai.OpenAI, realtime: str, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=realtime, messages=ASKED, **fields)
    assert refused.value.param == param


def test_an_agent_calls_a_tool_and_answers(platform: Platform, realtime: str) -> None:
    from langchain.agents import create_agent
    from langchain.agents.middleware import ModelRequest, ModelResponse, wrap_model_call
    from langchain_core.messages import AIMessage, ToolMessage
    from langchain_openai import ChatOpenAI

    seen: list[str] = []

    def weather(city: str) -> str:
        """The weather of a city now."""
        seen.append(city)
        return f"In {city} it rains and has 7 degrees."

    @wrap_model_call
    def calls_once(
        request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]
    ) -> ModelResponse:
        # A model of 135 million parameters does not decide by itself when to call.
        has_called = isinstance(request.messages[-1], ToolMessage)
        return handler(request.override(tool_choice="none" if has_called else "required"))

    with platform.openai() as client:
        model = ChatOpenAI(
            model=realtime,
            base_url=str(client.base_url),
            api_key=client.api_key,
            temperature=0,
            max_tokens=48,
        )
        agent = create_agent(model, [weather], middleware=[calls_once])
        messages = agent.invoke({"messages": ASKED})["messages"]
    called, result, answer = messages[1:]
    assert isinstance(called, AIMessage)
    assert [call["name"] for call in called.tool_calls] == ["weather"]
    assert seen == [called.tool_calls[0]["args"]["city"]]
    assert isinstance(result, ToolMessage)
    assert "7 degrees" in str(result.content)
    assert isinstance(answer, AIMessage)
    assert answer.content
    assert not answer.tool_calls
