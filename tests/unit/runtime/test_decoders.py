"""Every decoder gives the logits that transformers gives for the same weights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.runtime.tiny_decoders import (
    logits_of,
    make_decoder,
    packed_weights,
    ragged,
    rounded_model,
    tiny_model,
)

from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.family import why_not_native
from tidegate_runtime.models.open import KINDS
from tidegate_runtime.models.transformers import TransformersDecoder, embedding_scale
from tidegate_runtime.models.weights import Weights

PROMPT = [(7 * i * i + 3 * i + 11) % 300 for i in range(90)]
BLOCKS = [9, 3, 17, 4, 30, 12]
ROPE = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {"tie_word_embeddings": True},
    "Llama 3": {
        "kind": "Llama",
        "head_dim": 80,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "Qwen2": {"head_dim": None},
    "Qwen3": {},
    "Mistral": {"sliding_window": None},
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
MORE: dict[str, dict[str, Any]] = {
    "Gemma": {"tie_word_embeddings": True},
    "Gemma2": {"sliding_window": 24, "query_pre_attn_scalar": 32, "attn_logit_softcapping": 2.0},
    "Gemma3": {
        "tie_word_embeddings": True,
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "sliding_window": 24,
        "query_pre_attn_scalar": 32,
    },
    "Phi": {"head_dim": None},
    "Phi3": {
        "head_dim": None,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "partial_rotary_factor": 0.5,
        "sliding_window": 24,
    },
    "Mistral, windowed": {"kind": "Mistral", "sliding_window": 24},
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "Qwen2Moe": {**MOE, "shared_expert_intermediate_size": 64, "head_dim": None},
    "Qwen3Moe": MOE,
    "Linear": {"kind": "Llama", "rope_parameters": {**ROPE, "rope_type": "linear"}},
    "YaRN": {"kind": "Qwen3", "rope_parameters": {**ROPE, "rope_type": "yarn"}},
    "LongRoPE": {
        "kind": "Phi3",
        "head_dim": None,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "max_position_embeddings": 512,
        "original_max_position_embeddings": 256,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0 + i / 4 for i in range(8)],
            "long_factor": [2.0 + i for i in range(8)],
        },
    },
}
"""Those that are tested in 8 bits alone, which is enough to tell their parts."""


def family(name: str) -> Any:
    options = {"tie_word_embeddings": False, **(FAMILIES | MORE)[name]}
    options = {key: value for key, value in options.items() if value is not None}
    return tiny_model(options.pop("kind", name), **options)


def theirs(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([tokens])).logits[0]
    return logits


@pytest.mark.parametrize("name", [*FAMILIES, *MORE])
def test_in_float32_they_are_those_of_transformers(name: str) -> None:
    model = family(name)
    decoder = make_decoder("torch", model.config, packed_weights(model, 32))
    assert torch.allclose(logits_of(decoder, (PROMPT, 0, BLOCKS)), theirs(model, PROMPT), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "bits"),
    [*((name, bits) for name in FAMILIES for bits in (16, 8, 4)), *((name, 8) for name in MORE)],
)
def test_packed_they_are_those_of_transformers_with_the_same_rounding(
    name: str, bits: int, kind: str
) -> None:
    model = family(name)
    if kind == "native" and why_not_native(model.config):
        kind = "transformers"
    weights = packed_weights(model, bits)
    decoder = make_decoder(kind, model.config, weights)
    found = logits_of(decoder, (PROMPT, 0, BLOCKS))
    wanted = theirs(rounded_model(model, weights), PROMPT)
    # A sum in another order may round an input of the next layer to the neighbouring step, which
    # moves logits a little; a wrong layer moves them by their own size.
    assert (found - wanted).abs().max() < 0.15 * wanted.std()
    assert (found - wanted).abs().median() < 0.01 * wanted.std()


@pytest.mark.parametrize("name", ["Llama", "Qwen3"])
@pytest.mark.parametrize("bits", [16, 8, 4])
def test_compiled_logits_are_the_same_bits_in_any_company(name: str, bits: int) -> None:
    model = family(name)
    weights = packed_weights(model, bits)
    decoder = make_decoder("native", model.config, weights, "bf16")
    alone = logits_of(decoder, (PROMPT, 0, BLOCKS))
    halves = [
        logits_of(decoder, (PROMPT[:37], 0, [50, 51, 52]), (PROMPT[::-1], 0, BLOCKS))[:37],
        logits_of(
            decoder,
            (PROMPT[::-1][:20], 0, [20, 21]),
            (PROMPT[37:], 37, [50, 51, 52, 53, 54, 55]),
            ([5], 90, BLOCKS),
        )[20:73],
    ]
    assert torch.equal(torch.cat(halves), alone)
    steps = [
        logits_of(decoder, ([t], i, BLOCKS), ([9], 90, [50] * 6)) for i, t in enumerate(PROMPT)
    ]
    assert torch.equal(torch.stack([step[0] for step in steps]), alone)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("kv", "share"), [("bf16", 0.05), ("int8", 0.1), ("fp8", 0.4)])
def test_shorter_keys_and_values_move_logits_little(kind: str, kv: str, share: float) -> None:
    model = family("Qwen3")
    weights = packed_weights(model, 16)
    wanted = logits_of(make_decoder("native", model.config, weights, "fp32"), (PROMPT, 0, BLOCKS))
    decoder = make_decoder(kind, model.config, weights, kv)
    found = logits_of(decoder, (PROMPT, 0, BLOCKS))
    assert 0 < (found - wanted).abs().max() < share * wanted.std() * 3
    wide = {"bf16": 2 * 2 * 16 * 2, "int8": 2 * (2 * 16 + 8), "fp8": 2 * (2 * 16 + 8)}[kv]
    assert decoder.kv.token_bytes == 2 * wide


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["Gemma2", "Gemma3", "Phi3", "Mixtral"])
def test_a_prompt_in_chunks_beside_others_has_the_logits_of_the_whole(name: str, kind: str) -> None:
    model = family(name)
    if kind == "native" and why_not_native(model.config):
        pytest.skip("another decoder runs it")
    decoder = make_decoder(kind, model.config, packed_weights(model, 8))
    whole = logits_of(decoder, (PROMPT, 0, BLOCKS))
    first = logits_of(decoder, (PROMPT[:37], 0, [50, 51, 52]), (PROMPT[::-1], 0, BLOCKS))[:37]
    again = logits_of(decoder, ([5, 6], 0, [20]), (PROMPT[37:], 37, [50, 51, 52, 53, 54, 55]))[2:]
    error = (torch.cat((first, again)) - whole).abs()
    assert error.max() <= (0 if kind == "native" else 0.15 * whole.std())
    assert error.median() < 1e-5


def test_a_window_that_a_model_does_not_tell_of_is_refused_beyond_it() -> None:
    options = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 2}
    model = tiny_model("Qwen2Moe", **MOE, **options, tie_word_embeddings=False, head_dim=16)
    with pytest.raises(ModelRefused, match="window of 24 tokens; set context_tokens to 24"):
        make_decoder("torch", model.config, packed_weights(model, 32))


def test_embeddings_of_an_unknown_kind_are_refused_where_they_are_the_head() -> None:
    class NormedEmbedding(torch.nn.Embedding):
        pass

    embedding = NormedEmbedding(300, 96)
    with pytest.raises(ModelRefused, match="NormedEmbedding"):
        embedding_scale(SimpleNamespace(get_input_embeddings=lambda: embedding))


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_wanted_rows_come_back_with_their_best_token(kind: str) -> None:
    model = family("Llama")
    decoder = make_decoder(kind, model.config, packed_weights(model, 8))
    batch = ragged((PROMPT, 0, BLOCKS))
    every = decoder.forward(batch)
    logits, best = every.logits.clone(), every.best
    assert best == logits.argmax(-1).tolist()
    assert all(every.finite)
    some = np.array([3, 89], dtype=np.int32)
    again = decoder.forward(
        type(batch)(batch.tokens, batch.positions, batch.starts, batch.tables, some)
    )
    assert torch.allclose(again.logits, logits[[3, 89]], atol=1e-5)
    assert again.best == [best[3], best[89]]
    none = decoder.forward(
        type(batch)(batch.tokens, batch.positions, batch.starts, batch.tables, some[:0])
    )
    assert none.best == []
    assert len(none.logits) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_without_numbers_says_so_and_spoils_no_neighbour(kind: str) -> None:
    model = family("Llama")
    weights = packed_weights(model, 8)
    model.config.tie_word_embeddings = False
    embedding = weights.linears["lm_head"].values().bfloat16()
    embedding[13] = float("nan")
    tensors = {**weights.tensors, "model.embed_tokens.weight": embedding}
    untied = Weights(weights.linears, tensors, tied=False)
    decoder = make_decoder(kind, model.config, untied)
    good = [token for token in PROMPT if token != 13]
    wanted = logits_of(decoder, (good, 0, BLOCKS))
    result = decoder.forward(ragged(([13, 1, 2], 0, [40]), (good, 0, BLOCKS)))
    assert result.finite == [False] * 3 + [True] * len(good)
    if kind == "native":
        assert torch.equal(result.logits[3:], wanted)
    # The blocks that held them are as good as new to the next sequence.
    again = decoder.forward(ragged((good[:10], 0, [40])))
    assert all(again.finite)
    assert torch.allclose(again.logits, wanted[:10], atol=0.2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("token", [5, 295])
def test_one_logit_that_is_no_number_is_enough(kind: str, token: int) -> None:
    model = family("Llama 3")
    model.lm_head.weight.data[token] = float("nan")
    decoder = make_decoder(kind, model.config, packed_weights(model, 16))
    result = decoder.forward(ragged((PROMPT[:9], 0, BLOCKS)))
    assert result.logits.isnan().any(0).nonzero().flatten().tolist() == [token]
    assert result.finite == [False] * 9


def test_a_model_of_another_family_runs_layer_by_layer() -> None:
    model = tiny_model("Olmo2", tie_word_embeddings=False)
    assert why_not_native(model.config) == "its family is olmo2"
    weights = packed_weights(model, 16)
    decoder = make_decoder("transformers", model.config, weights)
    found = logits_of(decoder, (PROMPT, 0, BLOCKS))
    wanted = theirs(rounded_model(model, weights), PROMPT)
    assert isinstance(decoder, TransformersDecoder)
    assert (found - wanted).abs().max() < 0.1 * wanted.std()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model_type": "olmo2"}, "family is olmo2"),
        ({"use_bidirectional_attention": True}, "not causal"),
        ({"hidden_act": "gelu"}, "activation is gelu"),
        ({"head_dim": 24}, "24 components"),
    ],
)
def test_what_the_compiled_decoder_cannot_run_is_said(change: dict[str, Any], why: str) -> None:
    given = {"model_type": "llama", "hidden_act": "silu", "head_dim": 16, **change}
    reason = why_not_native(SimpleNamespace(**given))
    assert reason is not None
    assert why in reason
