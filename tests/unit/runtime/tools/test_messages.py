"""Calls in OpenAI's shape, whole and streamed."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tidegate.protocol.openai import ChatCompletion
from tidegate_runtime.engine.output import TokenOutput
from tidegate_runtime.engine.sequence import TokenLogprobs
from tidegate_runtime.server.chat import chat_answer, chat_chunks
from tidegate_runtime.server.job import Choice, Job
from tidegate_runtime.tools.reading import CallReading
from tidegate_runtime.tools.syntax import HERMES, MISTRAL

CALLS = CallReading(HERMES, frozenset({"weather", "now"}))
WRITTEN = (
    'I look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
)


class Texts:
    def text(self, token: int) -> str:
        return str(token)

    def bytes(self, token: int) -> bytes:
        return str(token).encode()


def job(calls: CallReading | None = CALLS) -> Job:
    return Job("chatcmpl-1", 1, "m", (), prompt_tokens=3, calls=calls)


def outputs(text: str, end: str = "stop", step: int = 5) -> list[TokenOutput]:
    pieces = [text[place : place + step] for place in range(0, len(text), step)] or [""]
    made = [TokenOutput(0, 1, piece) for piece in pieces]
    return [*made[:-1], replace(made[-1], finish_reason=end)]


async def streamed(job: Job, outputs: list[TokenOutput]) -> list[dict[str, Any]]:
    async def arriving() -> AsyncIterator[TokenOutput]:
        for output in outputs:
            yield output

    texts: Any = Texts()
    chunks = chat_chunks(job, arriving(), texts, with_usage=False)
    return [chunk.model_dump(exclude_unset=True)["choices"][0] async for chunk in chunks]


def answer(job: Job, text: str, end: str = "stop") -> ChatCompletion:
    texts: Any = Texts()
    choice = Choice(text=text, finish_reason=end)  # type: ignore[arg-type]
    return chat_answer(job, [choice], texts)


def test_a_whole_answer_has_its_words_and_its_calls() -> None:
    choice = answer(job(), WRITTEN).choices[0]
    assert choice.message.content == "I look."
    assert choice.message.tool_calls is not None
    functions = [
        (call.function.name, call.function.arguments) for call in choice.message.tool_calls
    ]
    assert functions == [("weather", '{"city": "Bern"}'), ("now", "{}")]
    assert choice.finish_reason == "tool_calls"
    assert len({call.id for call in choice.message.tool_calls}) == 2


def test_an_answer_of_calls_alone_has_no_content() -> None:
    message = answer(job(), WRITTEN.removeprefix("I look.\n")).choices[0].message
    assert message.content is None
    assert '"content":null' in message.model_dump_json()


def test_an_answer_without_calls_does_not_mention_them() -> None:
    for calls in (CALLS, None):
        choice = answer(job(calls), "Hello.").choices[0]
        assert choice.finish_reason == "stop"
        assert choice.model_dump()["message"] == {
            "role": "assistant", "content": "Hello.", "refusal": None
        }  # fmt: skip


def test_where_no_tools_were_offered_calls_are_words() -> None:
    choice = answer(job(None), WRITTEN).choices[0]
    assert (choice.message.content, choice.finish_reason) == (WRITTEN, "stop")


@pytest.mark.parametrize("step", [1, 5, 200])
async def test_a_streamed_call_is_named_first_and_then_argued(step: int) -> None:
    chunks = await streamed(job(), outputs(WRITTEN, step=step))
    deltas = [chunk["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content") or "" for delta in deltas) == "I look."
    pieces = [piece for delta in deltas for piece in delta.get("tool_calls", [])]
    for index, (name, arguments) in enumerate([("weather", '{"city": "Bern"}'), ("now", "{}")]):
        first, *rest = [piece for piece in pieces if piece["index"] == index]
        assert first.keys() == {"index", "id", "type", "function"}
        assert first["function"] == {"name": name, "arguments": ""}
        assert all(piece.keys() == {"index", "function"} for piece in rest)
        assert "".join(piece["function"]["arguments"] for piece in rest) == arguments
    assert deltas[-1] == {}
    assert [chunk["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + [
        "tool_calls"
    ]


async def test_a_call_that_is_cut_is_content_in_a_whole_answer_and_ends_as_cut() -> None:
    cut = WRITTEN[:60]
    choice = answer(job(), cut, "length").choices[0]
    assert (choice.message.content, choice.message.tool_calls) == (cut, None)
    assert choice.finish_reason == "length"
    chunks = await streamed(job(), outputs(cut, "length"))
    assert chunks[-1]["finish_reason"] == "length"


async def test_a_whole_call_in_an_answer_that_was_cut_is_kept() -> None:
    choice = answer(job(), WRITTEN[:-30], "length").choices[0]
    assert choice.message.tool_calls is not None
    assert choice.finish_reason == "length"


async def test_every_log_probability_is_sent_also_of_tokens_that_are_held_back() -> None:
    made = [replace(one, logprobs=TokenLogprobs(1, -0.5)) for one in outputs(WRITTEN)]
    chunks = await streamed(job(), made)
    reported = [chunk for chunk in chunks if chunk["logprobs"] is not None]
    assert len(reported) == len(made)


def test_ids_are_of_the_form_that_the_family_takes_back() -> None:
    assert re.fullmatch(r"call_[a-zA-Z0-9]{24}", HERMES.new_id())
    assert re.fullmatch(r"[a-zA-Z0-9]{9}", MISTRAL.new_id())
