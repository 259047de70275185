"""Checkpoints that are quantized already are read as what they stand for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.runtime.artifact.bitsandbytes_layouts import BITSANDBYTES, BITSANDBYTES_KEPT
from tests.unit.runtime.artifact.quantized_checkpoints import write_checkpoint
from tests.unit.runtime.artifact.quantized_layouts import KEPT, LAYOUTS, Layout
from tests.unit.runtime.artifact.torchao_layouts import TORCHAO, TORCHAO_KEPT

from tidegate_runtime.artifact.check import check_path
from tidegate_runtime.artifact.checkpoint import Checkpoint, open_checkpoint
from tidegate_runtime.artifact.pack import as_values
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.ops.quantized import QuantizedWeight

ALL = LAYOUTS | TORCHAO | BITSANDBYTES
LAYER = "model.layers.0.mlp.down_proj"


def opened(path: Path) -> Checkpoint:
    return open_checkpoint(check_path(path))


@pytest.mark.parametrize("name", ALL)
def test_every_weight_is_what_its_format_says(name: str, tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model", ALL[name])
    checkpoint = opened(tmp_path / "model")
    expected = dict(model.state_dict())
    kept = 0
    for state_name, weight in checkpoint.tensors():
        wanted = expected.pop(state_name)
        # Codes are kept, and scale times zero is rounded to fp16.
        torch.testing.assert_close(as_values(weight).float(), wanted, rtol=1e-3, atol=2e-4)
        kept += isinstance(weight, QuantizedWeight)
    assert expected == {} or set(expected) == {"lm_head.weight"}
    assert kept == (14 if name in KEPT | TORCHAO_KEPT | BITSANDBYTES_KEPT else 0)
    bits = ALL[name].config.get("bits") or (4 if "int4" in name else 8)
    assert checkpoint.stored_bits == bits
    assert getattr(checkpoint.config, "quantization_config", None) is None


def test_symmetric_codes_of_four_bits_lose_nothing_at_all(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "model", LAYOUTS["gptq 4 sym"])
    found = dict(opened(tmp_path / "model").tensors())
    weight = as_values(found[f"{LAYER}.weight"])
    assert torch.equal(weight, model.state_dict()[f"{LAYER}.weight"])


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"quant_method": "hqq", "bits": 4}, "is quantized by 'hqq', which is not read"),
        ({"quant_method": "bitsandbytes"}, "'bitsandbytes' in neither 4 nor 8 bits"),
        (
            {"quant_method": "bitsandbytes", "bnb_4bit_quant_storage": "bfloat16"},
            "bnb_4bit_quant_storage 'bfloat16', and 'uint8' is read",
        ),
        ({"quant_method": "gptq", "bits": 3}, "GPTQ weights of 3 bits, and 4 and 8 are read"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "'marlin'"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "'gemv', and 4 bits for 'gemm'"),
        ({"quant_method": "compressed-tensors", "format": "dense"}, "of 0 kinds"),
        (
            {
                "quant_method": "compressed-tensors",
                "format": "marlin-24",
                "config_groups": {"a": {"weights": {"num_bits": 4, "type": "int"}}},
            },
            "4-bit int weights in the format 'marlin-24'",
        ),
    ],
)
def test_a_format_that_is_not_read_is_refused_by_name(
    config: dict[str, Any], says: str, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / "model", Layout(config, LAYOUTS["awq 32"].write))
    with pytest.raises(ModelRefused, match=says) as caught:
        opened(tmp_path / "model")
    assert (
        "read are gptq, awq, compressed-tensors, fp8, torchao, bitsandbytes: use one of these"
        in caught.value.message
    )


def cut(stored: dict[str, torch.Tensor], part: str) -> None:
    stored[f"{LAYER}.{part}"] = stored[f"{LAYER}.{part}"][:-1].contiguous()


def without_blocks(stored: dict[str, torch.Tensor]) -> None:
    key = f"{LAYER}.weight.quant_state.bitsandbytes__nf4"
    state = json.loads(bytes(stored[key].tolist())) | {"blocksize": 0}
    stored[key] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)


DAMAGES: dict[str, tuple[str, Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "no scales": ("awq 32", lambda s: s.pop(f"{LAYER}.scales"), "lacks 'scales'"),
    "few codes": ("awq 32", lambda s: cut(s, "qweight"), r"'qweight' of the shape \[127, 8\]"),
    "few zeros": ("gptq 4 sym", lambda s: cut(s, "qzeros"), "'qzeros' of the shape"),
    "odd groups": ("awq 32", lambda s: cut(s, "scales"), "has 3 groups for 128 inputs"),
    "no such group": (
        "gptq 4 act-order",
        lambda s: s[f"{LAYER}.g_idx"].fill_(9),
        "a g_idx that is not of its 4 groups",
    ),
    "no state": (
        "bnb nf4",
        lambda s: s.pop(f"{LAYER}.weight.quant_state.bitsandbytes__nf4"),
        "lacks 'weight.quant_state.bitsandbytes__nf4'",
    ),
    "a state of something else": (
        "bnb nf4",
        lambda s: s[f"{LAYER}.weight.quant_state.bitsandbytes__nf4"].fill_(0),
        "has a quant_state that is not JSON",
    ),
    "blocks of nothing": ("bnb nf4", without_blocks, "has the blocksize 0"),
    "few pairs": ("bnb nf4", lambda s: cut(s, "weight"), r"'weight' of the shape \[4095, 1\]"),
    "few blocks": ("bnb nf4 nested", lambda s: cut(s, "weight.absmax"), "'weight.absmax' of the"),
    "an order of a card": (
        "bnb 8",
        lambda s: s[f"{LAYER}.weight_format"].fill_(2),
        r"in the order of a card \(weight_format\)",
    ),
    "no tile scales": (
        "fp8 tiles",
        lambda s: cut(s, "weight_scale_inv"),
        "'weight_scale_inv' of the shape",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_layer_is_refused_by_name(name: str, tmp_path: Path) -> None:
    layout, damage, says = DAMAGES[name]
    write_checkpoint(tmp_path / "model", ALL[layout])
    file = tmp_path / "model" / "model.safetensors"
    stored = load_file(file)
    damage(stored)
    save_file(stored, file)
    with pytest.raises(ModelRefused, match=says) as caught:
        list(opened(tmp_path / "model").tensors())
    assert repr(LAYER) in caught.value.message
