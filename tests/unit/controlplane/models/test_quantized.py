from __future__ import annotations

from typing import Any

import pytest

from tidegate_controlplane.models.facts import config_facts

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "vocab_size": 10,
}
EMBEDDING = {"model.embed_tokens.weight": [10, 64]}
LAYER = "model.layers.0.mlp.down_proj"
STORED: dict[str, tuple[dict[str, Any], dict[str, list[int]], int]] = {
    "gptq": (
        {"quant_method": "gptq", "bits": 4},
        {"qweight": [16, 64], "qzeros": [4, 8], "scales": [4, 64], "g_idx": [128]},
        4,
    ),
    "awq": (
        {"quant_method": "awq", "w_bit": 4},
        {"qweight": [128, 8], "qzeros": [4, 8], "scales": [4, 64]},
        4,
    ),
    "compressed-tensors": (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 8}}},
        },
        {"weight_packed": [64, 32], "weight_scale": [64, 1], "weight_shape": [2]},
        8,
    ),
    "fp8": (
        {"quant_method": "fp8"},
        {"weight": [64, 128], "weight_scale_inv": [1, 1]},
        8,
    ),
}


@pytest.mark.parametrize("name", STORED)
def test_a_quantized_model_is_as_large_as_what_its_words_stand_for(name: str) -> None:
    method, parts, bits = STORED[name]
    shapes = EMBEDDING | {f"{LAYER}.{part}": shape for part, shape in parts.items()}
    facts = config_facts(CONFIG | {"quantization_config": method}, "sha256:a", shapes, 1000)
    assert facts.parameters == 640 + 64 * 128
    assert facts.stored_bits == bits


def test_what_is_not_quantized_is_counted_as_it_is() -> None:
    facts = config_facts(CONFIG, "sha256:a", EMBEDDING, 1000)
    assert (facts.parameters, facts.stored_bits) == (640, 16)
