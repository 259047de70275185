"""What the engine adds to plain text, each way that it is asked for, in every mode.

At once and streamed of a serverless deployment, as invocations of an async one, as lines of a batch
of a batch one: one real model, which says the same to the same request whichever way it came.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jsonschema
import pytest
from tests.e2e.adapters import write_adapter
from tests.e2e.platform import PARIS, Platform

from tidegate import ChatAnswer, Client
from tidegate.answers import ChatChunk

NOW, LATER, NIGHT = "ways-now", "ways-later", "ways-night"
MODES = {NOW: "serverless", LATER: "async", NIGHT: "batch"}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Bern", "Lima", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
NOTES = " ".join(f"On day {day} the tide was {day % 7} metres high." for day in range(60))
SHORT_TOKENS = 200
FEATURES: dict[str, dict[str, Any]] = {
    "structured": {
        "messages": [{"role": "user", "content": "Alice is 30. Describe her as JSON."}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "person", "schema": PERSON, "strict": True},
        },
    },
    "tools": {
        "messages": [{"role": "user", "content": "What is the weather in Oslo?"}],
        "tools": [WEATHER],
        "tool_choice": "required",
        "parallel_tool_calls": False,
    },
    "adapter": {"messages": [{"role": "user", "content": PARIS}]},
    "context_compression": {
        "messages": [
            {"role": "user", "content": NOTES},
            {"role": "assistant", "content": "Thank you."},
            {"role": "user", "content": "How high was the tide on day 41?"},
        ],
        "context_compression": {"target_tokens": SHORT_TOKENS},
    },
}
Said = tuple[str, list[tuple[str, str]], str | None, int]
"""Text, calls (name and arguments), why it ended, and tokens of the prompt."""


def body(feature: str, deployment: str) -> dict[str, Any]:
    model = f"{deployment}:wild" if feature == "adapter" else deployment
    return {"model": model, **FEATURES[feature], "temperature": 0, "max_tokens": 48}


def said(answer: ChatAnswer) -> Said:
    calls = [(call.function.name, call.function.arguments) for call in answer.tool_calls]
    assert answer.usage is not None
    return answer.text, calls, answer.choices[0].finish_reason, answer.usage.prompt_tokens


def joined(chunks: Iterable[ChatChunk]) -> Said:
    text, names, arguments, reason, tokens = "", [], [], None, 0
    for chunk in chunks:
        text += chunk.text
        tokens = chunk.usage.prompt_tokens if chunk.usage else tokens
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            for call in choice.delta.tool_calls or []:
                if call.function.name:
                    names.append(call.function.name)
                    arguments.append("")
                arguments[call.index] += call.function.arguments or ""
    return text, list(zip(names, arguments, strict=True)), reason, tokens


@pytest.fixture(scope="module")
def client(
    platform: Platform, smollm2: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    adapters = {"wild": str(write_adapter(tmp_path_factory.mktemp("adapters") / "wild"))}
    with platform.client() as client:
        for name, mode in MODES.items():
            client.deploy(smollm2, name=name, mode=mode, runtime={"adapters": adapters})
        yield client
        for name in MODES:
            client.deployments.delete(name, wait=False)


@pytest.fixture(scope="module")
def at_once(client: Client) -> dict[str, Said]:
    return {feature: said(_chat(client, body(feature, NOW))) for feature in FEATURES}


@pytest.fixture(scope="module")
def results(client: Client) -> dict[str, Any]:
    """The answers of an invocation for each feature."""
    later = client.model(LATER)
    work = {feature: later.submit(body(feature, LATER)) for feature in FEATURES}
    return {feature: invocation.result(180) for feature, invocation in work.items()}


@pytest.fixture(scope="module")
def lines(client: Client) -> Mapping[str, ChatAnswer]:
    """The answers of one batch with a line for each feature."""
    batch = client.model(NIGHT).batch(
        [
            {
                "custom_id": feature,
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": body(feature, NIGHT),
            }
            for feature in FEATURES
        ]
    )
    assert [line.failure for line in batch.wait(180).errors()] == []
    return {
        str(line.custom_id): ChatAnswer.model_validate(line.response.body)
        for line in batch.results()
        if line.response is not None
    }


def test_an_answer_at_once_has_what_was_asked_for(client: Client, at_once: dict[str, Said]) -> None:
    jsonschema.validate(json.loads(at_once["structured"][0]), PERSON)
    text, ((name, arguments),), reason, _ = at_once["tools"]
    assert (text, name, reason) == ("", "weather", "tool_calls")
    jsonschema.validate(json.loads(arguments), WEATHER["function"]["parameters"])  # type: ignore[index]
    plain = {**body("adapter", NOW), "model": NOW}
    assert at_once["adapter"] != said(_chat(client, plain))
    whole = body("context_compression", NOW)
    del whole["context_compression"]
    assert at_once["context_compression"][3] <= SHORT_TOKENS < said(_chat(client, whole))[3]


@pytest.mark.parametrize("feature", FEATURES)
def test_a_stream_says_what_is_said_at_once(
    client: Client, at_once: dict[str, Said], feature: str
) -> None:
    asked = body(feature, NOW)
    stream = client.model(asked.pop("model")).stream(
        asked.pop("messages"), stream_options={"include_usage": True}, **asked
    )
    assert joined(stream) == at_once[feature]


@pytest.mark.parametrize("feature", FEATURES)
def test_an_invocation_says_what_is_said_at_once(
    results: dict[str, Any], at_once: dict[str, Said], feature: str
) -> None:
    assert said(results[feature]) == at_once[feature]


@pytest.mark.parametrize("feature", FEATURES)
def test_a_line_of_a_batch_says_what_is_said_at_once(
    lines: Mapping[str, ChatAnswer], at_once: dict[str, Said], feature: str
) -> None:
    assert said(lines[feature]) == at_once[feature]


def _chat(client: Client, asked: dict[str, Any]) -> ChatAnswer:
    fields = dict(asked)
    return client.model(fields.pop("model")).chat(fields.pop("messages"), **fields)
