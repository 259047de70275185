"""A model divided over two processes says what it says in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.unit.runtime.tiny_decoders import (
    CONTEXT_TOKENS,
    logits_of,
    make_decoder,
    packed_weights,
    ragged,
    tiny_model,
    write_artifact,
)

from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import Decoder
from tidegate_runtime.models.weights import Weights
from tidegate_runtime.parallel.cut import some_inputs, some_outputs
from tidegate_runtime.parallel.decoder import DividedDecoder
from tidegate_runtime.parallel.division import divide
from tidegate_runtime.parallel.orders import Whole
from tidegate_runtime.server.ranks import Ranks

PROMPT = [(7 * i * i + 3 * i + 11) % 300 for i in range(90)]
BLOCKS = [9, 3, 17, 4, 30, 12]
SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    "Qwen2": {"tie_word_embeddings": False},
    "Qwen3": {"tie_word_embeddings": False},
}


def family(name: str, **options: Any) -> Any:
    return tiny_model(name, **{**SHAPE, **FAMILIES[name], **options})


def divided(ranks: Ranks, root: Path, vocabulary: int, kind: str = "transformers") -> Decoder:
    whole = Whole(root, 1, "fp32", CONTEXT_TOKENS, kind)
    decoder = DividedDecoder(ranks.open(whole), ranks, vocabulary)
    decoder.allocate(64)
    return decoder


@pytest.mark.parametrize("bits", [32, 16, 8, 4])
@pytest.mark.parametrize("name", FAMILIES)
def test_two_processes_give_the_logits_of_one(
    ranks: Ranks, tmp_path: Path, name: str, bits: int
) -> None:
    model = family(name)
    weights = packed_weights(model, bits)
    decoder = divided(ranks, write_artifact(tmp_path, model, weights), 300)
    alone = make_decoder("transformers", model.config, weights)
    assert decoder.kv == alone.kv
    found, wanted = (logits_of(each, (PROMPT, 0, BLOCKS)) for each in (decoder, alone))
    assert found.shape == wanted.shape
    # The order of a sum is the only difference; with rounded inputs it may tip one to its
    # neighbouring step.
    near = 1e-4 if bits == 32 else 0.1 * float(wanted.std())
    assert (found - wanted).abs().max() < near
    # The keys and values of the prompt are in the pools of both.
    step = ragged(([5], len(PROMPT), BLOCKS))
    assert decoder.forward(step).best == alone.forward(step).best


def test_without_compiled_kernels_it_is_the_same(ranks: Ranks, tmp_path: Path) -> None:
    model = family("Llama")
    weights = packed_weights(model, 8)
    decoder = divided(ranks, write_artifact(tmp_path, model, weights), 300, kind="torch")
    alone = make_decoder("torch", model.config, weights)
    found, wanted = (logits_of(each, (PROMPT, 0, BLOCKS)) for each in (decoder, alone))
    assert (found - wanted).abs().max() < 0.1 * float(wanted.std())


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_the_parts_of_a_packed_weight_are_its_rows_and_columns(bits: int) -> None:
    whole = packed_weights(family("Qwen2"), bits).linears["model.layers.0.self_attn.q_proj"]
    assert torch.equal(some_outputs(whole, range(32, 64)).values(), whole.values()[32:])
    assert torch.equal(some_inputs(whole, range(32, 64)).values(), whole.values()[:, 32:])
    assert some_inputs(whole, range(32)).bias is whole.bias
    assert some_inputs(whole, range(32, 64)).bias is None
    assert whole.bias is not None
    assert torch.equal(some_outputs(whole, range(32, 64)).bias, whole.bias[32:])


@pytest.mark.parametrize(
    ("options", "ranks", "reason"),
    [
        ({}, 4, "num_key_value_heads 2 is not divisible"),
        (
            {"hidden_size": 96, "num_attention_heads": 6},
            2,
            "attention width 96 is not divisible by it in whole 32s",
        ),
        ({"intermediate_size": 96}, 2, "intermediate_size 96 is not divisible by it in whole 32s"),
        (
            {"head_dim": 32, "num_key_value_heads": 4, "vocab_size": 40},
            4,
            "its vocabulary has only 40 tokens",
        ),
    ],
)
def test_a_model_without_equal_parts_is_refused_with_its_number(
    options: dict[str, Any], ranks: int, reason: str
) -> None:
    model = family("Llama", **options)
    with pytest.raises(ModelRefused, match=reason) as refused:
        divide(model.config, packed_weights(model, 8), 0, ranks)
    assert f"tensor_parallel {ranks}" in refused.value.message


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("GPT2", "does not say how"), ("Mixtral", "experts.gate_up_proj are divided as")],
)
def test_a_family_whose_layers_are_not_known_is_refused(kind: str, reason: str) -> None:
    config = getattr(transformers, f"{kind}Config")()
    with pytest.raises(ModelRefused, match=reason):
        divide(config, Weights({}, {}, tied=True), 0, 2)
