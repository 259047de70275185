"""A replica that serves adapters, over HTTP: equal to the models that PEFT merges."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.unit.runtime.adapters.tiny_adapters import ALL, attach, merged, save

PROMPT = list(range(40, 80))


@pytest.fixture(scope="session")
def adapters(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    options: dict[str, dict[str, Any]] = {"calm": {}, "loud": {"r": 8}, "late": {"r": 2}}
    return {
        name: save(attach(base_model(tiny_llama), seed, **given), root / name)
        for seed, (name, given) in enumerate(options.items())
    }


def base_model(root: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(root, dtype=torch.float32)


@dataclass(frozen=True)
class Said:
    """A greedy continuation: its text and the log probabilities of its tokens."""

    text: str
    logprobs: list[float]


@pytest.fixture(scope="session")
def wanted(tiny_llama: Path, adapters: dict[str, Path], tiny_tokenizer: Any) -> dict[str, Said]:
    """What merged models say, and what the model alone says."""
    said = {"": continuation(base_model(tiny_llama), tiny_tokenizer)}
    for name, directory in adapters.items():
        said[name] = continuation(merged(base_model(tiny_llama), directory), tiny_tokenizer)
    assert len({each.text for each in said.values()}) == len(said)
    return said


def continuation(model: Any, tokenizer: Any) -> Said:
    made = model.generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long),
        max_new_tokens=20,
        min_new_tokens=20,
        do_sample=False,
        pad_token_id=256,
    )
    tokens = made[0, len(PROMPT) :]
    with torch.inference_mode():
        logits = model(made).logits[0, len(PROMPT) - 1 : -1]
    logprobs = logits.log_softmax(-1).gather(1, tokens.unsqueeze(1)).flatten()
    return Said(tokenizer.decode(tokens.tolist()), logprobs.tolist())


@pytest.fixture(scope="module", params=[1, 2], ids=["whole", "divided"])
def replica(
    request: pytest.FixtureRequest, spawn: Any, tiny_llama: Path, adapters: dict[str, Path]
) -> Any:
    made = spawn(
        source=str(tiny_llama),
        precision="fp32",
        adapters={name: str(adapters[name]) for name in ("calm", "loud")},
        max_adapters=2,
        tensor_parallel=request.param,
        threads=request.param,
    )
    made.wait_for("ready")
    return made


@pytest.fixture
def client(replica: Any) -> Any:
    with replica.client() as client:
        yield client


def body(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "model": f"test-model:{name}" if name else "test-model",
        "prompt": PROMPT,
        "max_tokens": 20,
        "min_tokens": 20,
        "temperature": 0,
        "logprobs": 0,
        **fields,
    }


async def ask(client: httpx.AsyncClient, name: str) -> Said:
    answer = await client.post("/v1/completions", json=body(name))
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == body(name)["model"]
    choice = answer.json()["choices"][0]
    return Said(choice["text"], choice["logprobs"]["token_logprobs"])


def assert_same(found: Said, wanted: Said) -> None:
    assert found.text == wanted.text
    assert found.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)


async def test_adapters_and_the_model_answer_side_by_side_as_if_merged(
    replica: Any, wanted: dict[str, Said]
) -> None:
    names = ["calm", "", "loud", "calm", "", "loud"]
    async with replica.async_client() as client:
        for _ in range(2):  # the second time over cached prefixes
            found = await asyncio.gather(*(ask(client, name) for name in names))
            for said, name in zip(found, names, strict=True):
                assert_same(said, wanted[name])


async def test_one_is_added_used_and_deleted_while_others_are_served(
    replica: Any, adapters: dict[str, Path], wanted: dict[str, Said]
) -> None:
    async with replica.async_client() as client:
        others = [asyncio.create_task(ask(client, name)) for name in ("", "", "")]
        request = {"name": "late", "source": str(adapters["late"])}
        added = await client.post("/adapters", json=request)
        assert added.status_code == 200, added.text
        assert added.json()["rank"] == 2
        assert added.json()["targets"] == sorted(ALL)
        assert (await client.post("/adapters", json=request)).json() == added.json()
        assert_same(await ask(client, "late"), wanted["late"])
        assert_same(await ask(client, "calm"), wanted["calm"])
        for other in others:
            assert_same(await other, wanted[""])
        assert (await client.delete("/adapters/late")).status_code == 204
        gone = await client.post("/v1/completions", json=body("late"))
        assert gone.status_code == 404
        assert "'test-model', 'test-model:calm', 'test-model:loud'" in gone.text
        assert (await client.delete("/adapters/late")).status_code == 404
    assert replica.metric("tidegate_adapter_evictions_total") >= 1
    assert replica.metric("tidegate_adapters_loaded") <= 2


async def test_a_name_takes_other_weights_and_no_cached_prefix_of_the_old_ones(
    replica: Any, adapters: dict[str, Path], wanted: dict[str, Said]
) -> None:
    async with replica.async_client() as client:
        for name in ("late", "loud", "late"):
            request = {"name": "changing", "source": str(adapters[name])}
            assert (await client.post("/adapters", json=request)).status_code == 200
            assert_same(await ask(client, "changing"), wanted[name])
        await client.delete("/adapters/changing")


def test_they_are_listed_as_models_with_the_model_as_parent(
    client: httpx.Client, adapters: dict[str, Path]
) -> None:
    base, calm, loud = client.get("/v1/models").json()["data"]
    assert (base["id"], base["parent"]) == ("test-model", None)
    assert (calm["id"], calm["parent"]) == ("test-model:calm", "test-model")
    assert (loud["id"], loud["root"]) == ("test-model:loud", str(adapters["loud"]))
    known = client.get("/adapters").json()
    assert [each["name"] for each in known["adapters"]] == ["calm", "loud"]
    assert known["max_adapters"] == 2


@pytest.mark.parametrize("name", ["a:b", "a/b", "", "UPPER", "../x"])
def test_a_name_that_is_none_is_refused(
    client: httpx.Client, adapters: dict[str, Path], name: str
) -> None:
    answer = client.post("/adapters", json={"name": name, "source": str(adapters["late"])})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "name"
    assert repr(name) in answer.json()["error"]["message"]


async def test_wrong_ones_are_refused_and_harm_nobody(
    replica: Any, adapters: dict[str, Path], wanted: dict[str, Said], tmp_path: Path
) -> None:
    path = shutil.copytree(adapters["late"], tmp_path / "bad") / "adapter_model.safetensors"
    tensors = load_file(path)
    async with replica.async_client() as client:

        async def refusal() -> str:
            request = {"name": "bad", "source": str(path.parent)}
            answer = await client.post("/adapters", json=request)
            assert answer.status_code == 400, answer.text
            error = answer.json()["error"]
            assert (error["param"], error["code"]) == ("source", "adapter_refused")
            return str(error["message"])

        others = [asyncio.create_task(ask(client, name)) for name in ("calm", "")]
        save_file({name: tensor[:, :1].clone() for name, tensor in tensors.items()}, path)
        assert "has the shape" in await refusal()
        save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, path)
        assert "no numbers" in await refusal()
        path.write_bytes(path.read_bytes()[:-8])
        assert "broken" in await refusal()
        assert_same(await others[0], wanted["calm"])
        assert_same(await others[1], wanted[""])
        # Numbers so large that no logit is one pass the check, and fail their own request alone.
        save_file({name: torch.full_like(tensor, 1e30) for name, tensor in tensors.items()}, path)
        request = {"name": "bad", "source": str(path.parent)}
        assert (await client.post("/adapters", json=request)).status_code == 200
        answers = await asyncio.gather(
            client.post("/v1/completions", json=body("bad")), ask(client, "calm"), ask(client, "")
        )
        assert answers[0].status_code == 500
        assert_same(answers[1], wanted["calm"])
        assert_same(answers[2], wanted[""])
        await client.delete("/adapters/bad")


def test_a_declared_adapter_that_is_wrong_stops_the_start(
    spawn: Any, tiny_llama: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    root = shutil.copytree(adapters["late"], tmp_path / "bad")
    (root / "adapter_model.safetensors").write_bytes(b"")
    failed = spawn(source=str(tiny_llama), precision="fp32", adapters={"bad": str(root)})
    status = failed.wait_for("failed")
    assert status["reason"] == "BrokenAdapter"
    assert failed.process.wait() == 3
