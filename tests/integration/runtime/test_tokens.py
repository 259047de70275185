"""Our engine gives the tokens that transformers' own generate gives, in float32."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tidegate_runtime.artifact.load import LoadedModel, load_generator
from tidegate_runtime.artifact.memory import available_bytes
from tidegate_runtime.artifact.open import open_artifact
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.engine.sequence import SamplingParams, SequenceRequest
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import Decoder
from tidegate_runtime.models.open import open_decoder
from tidegate_runtime.server.loading import build_engine
from tidegate_runtime.server.metrics import Metrics

PROMPTS = [[5], [9, 8, 7], list(range(40)), list(range(100, 133)), [1, 2] * 60]
GREEDY = SamplingParams(temperature=0.0)


def load(artifact: Path, context_tokens: int | None = None) -> tuple[LoadedModel, Decoder]:
    loaded = load_generator(open_artifact(artifact), context_tokens=context_tokens)
    return loaded, open_decoder(artifact, threads=None, kv="fp32")


def make_engine(artifact: Path, metrics: Metrics | None = None, **options: Any) -> Engine:
    options = {"kv_cache_bytes": None, "max_sequences": 8, **options}
    engine = build_engine(
        *load(artifact),
        free_bytes=available_bytes(),
        metrics=metrics or Metrics("tiny"),
        on_death=lambda error: None,
        **options,
    )
    engine.start()
    return engine


def expected(root: Path, prompt: list[int], count: int) -> list[int]:
    model = transformers.AutoModelForCausalLM.from_pretrained(root, dtype=torch.float32)
    made = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=256,
    )
    return [int(token) for token in made[0, len(prompt) :]]


async def tokens_of(engine: Engine, prompt: list[int], count: int, **options: Any) -> list[int]:
    options = {"sampling": GREEDY, **options}
    request = SequenceRequest(tuple(prompt), count, **options)
    async with engine.generate([request]) as events:
        return [event.token async for event in events]


@pytest.mark.parametrize("kind", ["Llama", "Qwen3", "Qwen2", "Mistral"])
async def test_greedy_tokens_are_those_of_transformers(
    tiny: Callable[..., Path], artifact_of: Callable[..., Path], kind: str
) -> None:
    root = tiny(kind)
    engine = make_engine(artifact_of(root))
    found = await asyncio.gather(*(tokens_of(engine, prompt, 40) for prompt in PROMPTS))
    assert found == [expected(root, prompt, 40) for prompt in PROMPTS]
    assert len({tuple(tokens) for tokens in found}) == len(PROMPTS)
    engine.stop("done")


MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}
FAMILIES: dict[str, dict[str, Any]] = {
    "Gemma": {"head_dim": 16},
    "Gemma2": {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 20},
    "Gemma3": {
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 20,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "Phi": {},
    "Phi3": {"pad_token_id": 0, "sliding_window": 20},
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen3Moe": MOE,
}


@pytest.mark.parametrize("kind", FAMILIES)
async def test_tokens_and_logprobs_of_a_family_are_those_of_transformers(
    tiny: Callable[..., Path], artifact_of: Callable[..., Path], kind: str
) -> None:
    root = tiny(kind, **FAMILIES[kind])
    engine = make_engine(artifact_of(root))
    engine._scheduler.step_tokens = 19
    model = transformers.AutoModelForCausalLM.from_pretrained(root, dtype=torch.float32)
    # In chunks and in company, and again from the blocks that the first left.
    whole, again = [*PROMPTS[:4], list(range(70))], list(range(64))
    for prompts in (whole, [again]):
        found = await asyncio.gather(*(outputs_of(engine, prompt, 8) for prompt in prompts))
        for prompt, outputs in zip(prompts, found, strict=True):
            tokens = [output.token for output in outputs]
            with torch.inference_mode():
                logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
            assert tokens == logits.argmax(-1).tolist()
            wanted = logits.log_softmax(-1).amax(-1).tolist()
            logprobs = [output.logprobs.logprob for output in outputs]
            assert logprobs == pytest.approx(wanted, abs=1e-4)
    engine.stop("done")


async def outputs_of(engine: Engine, prompt: list[int], count: int) -> list[Any]:
    sampling = SamplingParams(temperature=0.0, logprobs=0)
    request = SequenceRequest(tuple(prompt), count, sampling, ignore_eos=True)
    async with engine.generate([request]) as events:
        return [event async for event in events]


HOSTILE = {
    "hidden_size": (64, r"weight 'model\.[a-z_.0-9]+' has the shape"),
    "num_attention_heads": (2, r"weight 'model\.[a-z_.0-9]+' has the shape"),
    "num_hidden_layers": (2, r"weight 'model\.layers\.2\..*counts 2 layers"),
    "vocab_size": (300, "weight '(model.embed_tokens|lm_head).weight' has the shape"),
    "model_type": ("nothing", "nothing"),
}


@pytest.mark.parametrize("field", HOSTILE)
def test_a_configuration_that_does_not_fit_its_weights_is_refused(
    tiny: Callable[..., Path], artifact_of: Callable[..., Path], field: str
) -> None:
    root = tiny("Llama", head_dim=8)
    value, why = HOSTILE[field]
    config = json.loads((root / "config.json").read_text())
    (root / "config.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(ModelRefused, match=why):
        artifact_of(root)


@pytest.mark.parametrize("kind", ["Mixtral", "Qwen3Moe"])
@pytest.mark.parametrize("lacks", ["whole", "row"])
def test_a_mixture_with_a_broken_expert_is_refused_with_its_name(
    tiny: Callable[..., Path], artifact_of: Callable[..., Path], kind: str, lacks: str
) -> None:
    root = tiny(kind, **FAMILIES[kind])
    weights = load_file(root / "model.safetensors")
    name = next(name for name in weights if ".experts.2." in name)
    weights[name] = weights[name][:-1].clone()
    if lacks == "whole":
        del weights[name]
    save_file(weights, root / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelRefused, match=re.escape(name)):
        artifact_of(root, "int8")


async def test_a_scaling_that_is_not_the_usual_one_is_honoured(
    tiny: Callable[..., Path], artifact_of: Callable[..., Path]
) -> None:
    root = tiny("Granite", attention_multiplier=0.9, logits_scaling=1.0)
    engine = make_engine(artifact_of(root))
    for prompt in PROMPTS[2:4]:
        assert await tokens_of(engine, prompt, 30) == expected(root, prompt, 30)
    engine.stop("done")


@pytest.fixture(scope="session")
def tiny_artifact(tiny_llama: Path, artifact_of: Callable[..., Path]) -> Path:
    return artifact_of(tiny_llama)


async def test_preemption_in_a_small_cache_gives_the_same_tokens(tiny_artifact: Path) -> None:
    roomy = make_engine(tiny_artifact)
    alone = [await tokens_of(roomy, prompt, 60, ignore_eos=True) for prompt in PROMPTS]
    roomy.stop("done")
    metrics = Metrics("tiny")
    block_bytes = 3 * 2 * (8 + 8) * 4 * 16
    tight = make_engine(tiny_artifact, metrics, kv_cache_bytes=14 * block_bytes)
    together = await asyncio.gather(
        *(tokens_of(tight, prompt, 60, ignore_eos=True) for prompt in PROMPTS)
    )
    labels = {"model_name": "tiny"}
    assert metrics.registry.get_sample_value("vllm:num_preemptions_total", labels) > 0
    assert together == alone
    assert tight.stats().used_blocks == 0
    tight.stop("done")


async def test_a_prompt_longer_than_a_step_is_the_same_in_chunks(
    tiny_llama: Path, tiny_artifact: Path
) -> None:
    engine = make_engine(tiny_artifact)
    engine._scheduler.step_tokens = 7
    for prompt in PROMPTS:
        assert await tokens_of(engine, prompt, 20) == expected(tiny_llama, prompt, 20)
    engine.stop("done")


async def test_a_seed_gives_the_same_tokens_in_any_company(tiny_artifact: Path) -> None:
    engine = make_engine(tiny_artifact)
    seeded = {"sampling": SamplingParams(seed=11, top_p=0.95), "ignore_eos": True}
    alone = await tokens_of(engine, PROMPTS[2], 30, **seeded)
    unseeded = {"sampling": SamplingParams(), "ignore_eos": True}
    crowd = await asyncio.gather(
        tokens_of(engine, PROMPTS[4], 30, **unseeded),
        tokens_of(engine, PROMPTS[2], 30, **seeded),
        tokens_of(engine, PROMPTS[3], 30, **unseeded),
    )
    assert crowd[1] == alone
    assert crowd[0] != alone
    engine.stop("done")


async def test_prompt_logprobs_are_the_model_s_whatever_the_chunks(
    tiny_llama: Path, tiny_artifact: Path
) -> None:
    prompt = PROMPTS[2]
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    with torch.inference_mode():
        logprobs = model(torch.tensor([prompt])).logits[0].log_softmax(-1)
    wanted = [float(logprobs[at - 1, prompt[at]]) for at in range(1, len(prompt))]
    for step_tokens in (512, 7):
        engine = make_engine(tiny_artifact)
        engine._scheduler.step_tokens = step_tokens
        request = SequenceRequest(
            tuple(prompt), 2, SamplingParams(temperature=0.0, logprobs=1), prompt_logprobs=True
        )
        async with engine.generate([request]) as events:
            first = await anext(events)
        assert [item.token for item in first.prompt_logprobs] == prompt[1:]
        found = [item.logprob for item in first.prompt_logprobs]
        assert found == pytest.approx(wanted, abs=1e-3)
        engine.stop("done")


def refusal(
    root: Path, artifact_of: Callable[..., Path], context_tokens: int | None = None
) -> ModelRefused:
    with pytest.raises(ModelRefused) as refused:
        load(artifact_of(root), context_tokens)
    return refused.value


def test_a_mixture_that_would_be_wrong_is_refused_by_name(
    tiny: Callable[..., Path], artifact_of: Callable[..., Path]
) -> None:
    options = {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}
    refused = refusal(tiny("GptOss", **options), artifact_of)
    assert refused.reason == "UnsupportedModel"
    assert "'model.layers.0.mlp.experts' are no plain gated feed-forward" in refused.message


def test_an_encoder_is_not_served_as_a_generator(
    tmp_path: Path, tiny_tokenizer: Any, artifact_of: Callable[..., Path]
) -> None:
    config = transformers.BertConfig(
        vocab_size=257, hidden_size=32, num_hidden_layers=2, num_attention_heads=4
    )
    transformers.BertForMaskedLM(config).save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    assert refusal(tmp_path, artifact_of).reason == "UnsupportedModel"


def test_weights_that_are_missing_are_not_filled_with_random_numbers(
    tiny: Callable[..., Path], artifact_of: Callable[..., Path]
) -> None:
    from safetensors.torch import load_file, save_file

    root = tiny("Llama")
    weights = load_file(root / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, root / "model.safetensors", metadata={"format": "pt"})
    refused = refusal(root, artifact_of)
    assert refused.reason == "BrokenModel"
    assert "model.layers.1.mlp.up_proj.weight" in refused.message


def test_truncated_weights_are_refused(
    tiny: Callable[..., Path], artifact_of: Callable[..., Path]
) -> None:
    root = tiny("Llama")
    path = root / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert refusal(root, artifact_of).reason == "BrokenModel"


def test_a_context_beyond_the_model_s_own_is_refused(
    tiny_llama: Path, artifact_of: Callable[..., Path]
) -> None:
    refused = refusal(tiny_llama, artifact_of, context_tokens=513)
    assert refused.reason == "BadContext"
    assert "512" in refused.message
