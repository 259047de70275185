from __future__ import annotations

import json
from typing import Any

import pytest

from tidegate_controlplane.models.facts import config_facts
from tidegate_controlplane.models.source import SourceError

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
    "bitsandbytes, 4 bits": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {
            "weight": [4096, 1],
            "weight.absmax": [128],
            "weight.quant_map": [16],
            "weight.nested_absmax": [1],
            "weight.nested_quant_map": [256],
            "weight.quant_state.bitsandbytes__nf4": [167],
        },
        8,
    ),
    "bitsandbytes, 8 bits": (
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        {"weight": [64, 128], "SCB": [64], "weight_format": []},
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


TORCHAO: dict[str, tuple[dict[str, Any], dict[str, list[int]], int]] = {
    "Int4Tensor": (
        {"shape": [64, 128]},
        {"qdata": [64, 64], "scale": [4, 64], "zero_point": [4, 64]},
        4,
    ),
    "Int4TilePackedTo4dTensor": (
        {"shape": [64, 128]},
        {"qdata": [8, 8, 32, 4], "scale_and_zero": [32, 64, 2]},
        4,
    ),
    "Int8Tensor": ({}, {"qdata": [64, 128], "scale": [64, 1], "zero_point": [64, 1]}, 8),
    "Float8Tensor": ({}, {"qdata": [64, 128], "scale": [64, 1]}, 8),
    "IntxUnpackedToInt8Tensor": (
        {"target_dtype": {"_type": "torch.dtype", "_data": "int3"}},
        {"qdata": [64, 128], "scale": [64, 4], "zero_point": [64, 4]},
        4,
    ),
}
AO = {"quantization_config": {"quant_method": "torchao", "quant_type": {"default": {}}}}


def metadata_of(kind: str, data: dict[str, Any]) -> dict[str, str]:
    described = {
        "model.embed_tokens.weight": {"_type": "Tensor"},
        f"{LAYER}.weight": {"_type": kind, "_data": data},
    }
    texts = {name: json.dumps(told) for name, told in described.items()}
    return {"format": "pt", "tensor_names": json.dumps(list(described)), **texts}


@pytest.mark.parametrize("kind", TORCHAO)
def test_a_torchao_model_is_as_large_as_its_metadata_says(kind: str) -> None:
    data, parts, bits = TORCHAO[kind]
    shapes = EMBEDDING | {f"{LAYER}._weight_{part}": shape for part, shape in parts.items()}
    facts = config_facts(CONFIG | AO, "sha256:a", shapes, 1000, metadata_of(kind, data))
    assert (facts.parameters, facts.stored_bits) == (640 + 64 * 128, bits)


@pytest.mark.parametrize(
    ("quantization", "metadata", "says"),
    [
        ({"quant_method": "hqq"}, {}, "it is quantized by 'hqq', which is not read"),
        (
            {"quant_method": "bitsandbytes", "bnb_4bit_quant_storage": "float32"},
            {},
            "it has the bnb_4bit_quant_storage 'float32'",
        ),
        ({"quant_method": "torchao"}, {"format": "pt"}, "without the metadata that describes"),
        (
            {"quant_method": "torchao"},
            metadata_of("NVFP4Tensor", {}),
            f"it has '{LAYER}.weight' as a torchao NVFP4Tensor, which is not read",
        ),
        (
            {"quant_method": "torchao", "quant_type": {"int4_tile_packed_ntile": 16}},
            metadata_of("Int4TilePackedTo4dTensor", {"shape": [64, 128]}),
            "it has torchao tiles of 16 outputs",
        ),
    ],
)
def test_a_quantization_that_is_not_read_is_refused_by_name(
    quantization: dict[str, Any], metadata: dict[str, str], says: str
) -> None:
    config = CONFIG | {"quantization_config": quantization}
    with pytest.raises(SourceError, match=says) as caught:
        config_facts(config, "sha256:a", EMBEDDING, 1000, metadata)
    assert "torchao, bitsandbytes: use one of these" in str(caught.value)
