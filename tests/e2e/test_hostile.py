"""What means harm is refused by name through the gateway, and the next request is answered."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.e2e.adapters import RANK, WIDTH, write_adapter
from tests.e2e.platform import PARIS, Platform

from tidegate import InvalidDeclaration, NotFound

MESSAGES: Any = [{"role": "user", "content": PARIS}]
BOMB = {"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}, {"multipleOf": 9949}]}
ENDLESS = {
    "type": "object",
    "properties": {"next": {"$ref": "#"}},
    "required": ["next"],
    "additionalProperties": False,
}
AMBIGUOUS = 'start: e\ne: e e e e e | e e e e | e e | "a" | '


def tool(parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters, "strict": True}}


@pytest.fixture
def client(platform: Platform, realtime: str) -> Iterator[openai.OpenAI]:
    """A client of the deployment, whose replica answers as before when the test is over."""

    def answer() -> tuple[str | None, list[str]]:
        asked = {"model": realtime, "messages": MESSAGES, "temperature": 0, "max_tokens": 8}
        said = http.post("/v1/chat/completions", json=asked).json()
        serving = http.get(f"/api/v1/deployments/{realtime}/replicas").json()["data"]
        return said["choices"][0]["message"]["content"], [each["id"] for each in serving]

    with platform.openai() as client, platform.http() as http:
        before = answer()
        yield client
        assert answer() == before


@pytest.mark.parametrize(
    ("fields", "param", "code", "reason"),
    [
        ({"guided_json": BOMB}, "guided_json", "schema_too_complex", "did not compile within"),
        ({"guided_json": ENDLESS}, "guided_json", "invalid_schema", "without an end"),
        (
            {"tools": [tool(ENDLESS)], "tool_choice": "required"},
            "tools.0.function.parameters",
            "invalid_schema",
            "without an end",
        ),
        (
            {"tools": [tool({"type": "object", "properties": {"n": BOMB}})]},
            "tools",
            "schema_too_complex",
            "did not compile within",
        ),
    ],
    ids=["bomb", "endless", "endless tool", "bomb in a tool"],
)
def test_a_grammar_that_means_harm_is_refused(
    client: openai.OpenAI, realtime: str, fields: Any, param: str, code: str, reason: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=reason) as refused:
        client.chat.completions.create(model=realtime, messages=MESSAGES, extra_body=fields)
    assert (refused.value.param, refused.value.code) == (param, code)


def test_a_grammar_that_grows_too_costly_is_given_up(client: openai.OpenAI, realtime: str) -> None:
    bomb = {"guided_grammar": AMBIGUOUS, "ignore_eos": True}
    with pytest.raises(openai.BadRequestError, match="the grammar has become too costly"):
        client.chat.completions.create(
            model=realtime, messages=MESSAGES, max_tokens=400, extra_body=bomb
        )


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"rank": RANK + 1}, f"has the shape .*{RANK + 1}"),
        ({"width": WIDTH - 64}, f"has the shape .*{WIDTH - 64}"),
    ],
    ids=["rank", "width"],
)
def test_an_adapter_of_the_wrong_shape_is_refused_to_whoever_asks_for_it(
    platform: Platform,
    client: openai.OpenAI,
    realtime: str,
    tmp_path: Path,
    shape: dict[str, int],
    reason: str,
) -> None:
    source = write_adapter(tmp_path / "bad", **shape)
    with platform.client() as owner:
        deployment = owner.deployments.get(realtime).add_adapter("bad", str(source))
        with pytest.raises(openai.BadRequestError, match=reason):
            client.chat.completions.create(model=f"{realtime}:bad", messages=MESSAGES, max_tokens=1)
        deployment.remove_adapter("bad")


@pytest.mark.usefixtures("client")
def test_a_truncated_checkpoint_is_refused_when_it_is_deployed(
    platform: Platform, smollm2: str, minilm: str, tmp_path: Path
) -> None:
    gguf, encoder = tmp_path / "half.gguf", tmp_path / "encoder"
    whole = Path(smollm2).read_bytes()
    gguf.write_bytes(whole[: len(whole) // 2])
    shutil.copytree(minilm, encoder)
    with (encoder / "model.safetensors").open("r+b") as weights:
        weights.truncate((encoder / "model.safetensors").stat().st_size - 1000)
    with platform.client() as owner:
        with pytest.raises(InvalidDeclaration, match=r"'half\.gguf' is not a GGUF file"):
            owner.deploy(gguf, name="half")
        with pytest.raises(InvalidDeclaration, match=r"'model\.safetensors' is not whole"):
            owner.deploy(encoder, name="half", task="embed")
        with pytest.raises(NotFound):
            owner.deployments.get("half")
