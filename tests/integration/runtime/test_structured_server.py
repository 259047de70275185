"""Structured answers of a replica process with the real model, over HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

ASK = [{"role": "user", "content": "Describe Alice, who is 30 and has a cat and a dog, as JSON."}]
CHAIN = {
    "$defs": {
        "link": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/link"}]},
            },
            "required": ["name", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/link",
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "person": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "pets": {"type": "array", "items": {"enum": ["cat", "dog"]}, "maxItems": 3},
        },
        "required": ["name", "age", "pets"],
        "additionalProperties": False,
    },
    "event": {
        "type": "object",
        "properties": {
            "day": {"type": "string", "format": "date"},
            "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2}$"},
            "end": {"anyOf": [{"type": "null"}, {"type": "number", "multipleOf": 0.5}]},
        },
        "required": ["day", "code", "end"],
        "additionalProperties": False,
    },
}
BOMB = {"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}, {"multipleOf": 9949}]}


def json_schema(schema: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, **options}}


@pytest.fixture
def client(real: Any) -> Iterator[httpx.Client]:
    with real.client() as client:
        yield client


def post(client: httpx.Client, path: str = "/v1/chat/completions", **fields: Any) -> httpx.Response:
    asked = {"messages": ASK} if "chat" in path else {"prompt": "Alice is"}
    return client.post(path, json={"model": "test-model", "max_tokens": 120, **asked, **fields})


def text(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    choice = response.json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    return str(choice["message"]["content"] if "message" in choice else choice["text"])


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_answer_is_json_of_the_schema(client: httpx.Client, name: str) -> None:
    schema = SCHEMAS[name]
    for fields in ({"temperature": 0}, {"seed": 4}):
        made = text(post(client, response_format=json_schema(schema, strict=True), **fields))
        jsonschema.validate(json.loads(made), schema)


def test_a_stream_says_the_same(client: httpx.Client) -> None:
    asked = {"response_format": json_schema(SCHEMAS["person"]), "seed": 5}
    streamed = post(client, **asked, stream=True).text
    pieces = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    joined = "".join(piece["choices"][0]["delta"].get("content") or "" for piece in pieces)
    assert joined == text(post(client, **asked))


def test_a_recursive_schema_is_followed_to_its_end(client: httpx.Client) -> None:
    line = '{"name": "Bob", "next": {"name": "Eve", "next": null}}\n'
    made = text(post(client, "/v1/completions", prompt=line * 3, guided_json=CHAIN, temperature=0))
    jsonschema.validate(json.loads(made), CHAIN)
    assert json.loads(made)["next"]


def test_any_object_will_do_where_only_json_is_wanted(client: httpx.Client) -> None:
    asked = [{"role": "user", "content": 'Repeat this JSON: {"name": "Bob"}'}]
    made = text(
        post(client, messages=asked, response_format={"type": "json_object"}, temperature=0)
    )
    assert isinstance(json.loads(made), dict)


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"guided_regex": "[0-9]{3}-[a-f]{2}"}, "[0-9]{3}-[a-f]{2}"),
        ({"guided_choice": ["green", 'a "blue" one']}, 'green|a "blue" one'),
        ({"guided_grammar": 'root ::= "x" n\nn ::= [0-9] | [0-9] [a-c]'}, "x[0-9][a-c]?"),
        ({"guided_grammar": 'start: "<" NAME ">"\nNAME: /[a-z]{2,5}/'}, "<[a-z]{2,5}>"),
        ({"guided_json": {"enum": [1, "two"]}}, '1|"two"'),
    ],
)
def test_completions_and_chats_are_guided(
    client: httpx.Client, fields: dict[str, Any], pattern: str
) -> None:
    for path in ("/v1/completions", "/v1/chat/completions"):
        assert re.fullmatch(pattern, text(post(client, path, **fields, seed=2)))


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"guided_json": BOMB}, "guided_json", "schema_too_complex"),
        ({"guided_json": {"$ref": "#"}}, "guided_json", "invalid_schema"),
        (
            {"response_format": json_schema({"not": {}})},
            "response_format.json_schema.schema",
            "invalid_schema",
        ),
        ({"guided_regex": "(a"}, "guided_regex", "invalid_grammar"),
        ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice", "invalid_value"),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "invalid_value",
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
    ],
)
def test_what_cannot_be_followed_is_refused_and_the_next_answer_is_as_before(
    client: httpx.Client, fields: dict[str, Any], param: str, code: str
) -> None:
    before = post(client, temperature=0, max_tokens=8).json()["choices"]
    response = post(client, **fields)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, param, code), error
    assert post(client, temperature=0, max_tokens=8).json()["choices"] == before
