"""Weights lie in one safetensors file, each where a kernel can read it in place."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tidegate_runtime.artifact.checkpoint import Skeleton
from tidegate_runtime.artifact.pack import PackedFile, PackPlan
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.ops.quantized import QuantizedWeight, dequantize, quantize, unpack

PARTS = ("codes", "scales", "minimums")


def skeleton(**changes: Any) -> Skeleton:
    parts: dict[str, Any] = {
        "architecture": "LlamaForCausalLM",
        "linears": {"up": (40, 32), "lm_head": (10, 32)},
        "biases": frozenset({"up"}),
        "others": {"norm.weight": (32,), "odd": (3,)},
        "head": "lm_head",
        "embedding": "embed",
        "tied": True,
        "experts": {},
    }
    return Skeleton(**{**parts, **changes})


def weights(shape: Skeleton) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    found = {f"{name}.weight": torch.randn(size) for name, size in shape.linears.items()}
    found |= {f"{name}.bias": torch.randn(shape.linears[name][0]) for name in shape.biases}
    return found | {name: torch.randn(size) for name, size in shape.others.items()}


def write(path: Path, plan: PackPlan, state: dict[str, Any]) -> dict[str, torch.Tensor]:
    with PackedFile(path, plan.tensors()) as file:
        for name, weight in state.items():
            for part, tensor in plan.pack(name, weight).items():
                file.write(part, tensor)
        file.finish(Path("/models/source"))
    return load_file(path)


@pytest.mark.parametrize("precision", ["int4", "int8", "bf16", "fp32"])
def test_tensors_start_on_cache_lines(tmp_path: Path, precision: str) -> None:
    shape = skeleton()
    path = tmp_path / "w.safetensors"
    plan = PackPlan.of(shape, precision)
    write(path, plan, weights(shape))
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    assert (8 + length) % 64 == 0
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__")
    for name, tensor in plan.tensors().items():
        start, end = header[name]["data_offsets"]
        assert end - start == tensor.size_bytes
        assert start % 64 == 0 or tensor.size_bytes % 64


@pytest.mark.parametrize(("precision", "bits"), [("int4", 4), ("int8", 8)])
def test_a_linear_layer_is_what_quantize_makes_of_it(
    tmp_path: Path, precision: str, bits: int
) -> None:
    shape = skeleton()
    state = weights(shape)
    found = write(tmp_path / "w", PackPlan.of(shape, precision), state)
    packed = {
        part: found[f"up.{part}"]
        for part in ("codes", "scales", "minimums")
        if f"up.{part}" in found
    }
    read = unpack(packed, 40, bits)
    assert isinstance(read, QuantizedWeight)
    assert torch.equal(dequantize(read), dequantize(quantize(state["up.weight"], bits)))
    assert torch.equal(found["up.bias"], state["up.bias"])
    assert torch.equal(found["norm.weight"], state["norm.weight"])


def test_the_last_layer_keeps_eight_bits_beside_four() -> None:
    plan = PackPlan.of(skeleton(), "int4")
    assert {name: entry.bits for name, entry in plan.linears.items()} == {"up": 4, "lm_head": 8}


def test_codes_that_the_source_has_are_kept(tmp_path: Path) -> None:
    shape = skeleton()
    state: dict[str, Any] = weights(shape)
    own = QuantizedWeight(
        torch.randint(0, 16, (40, 32), dtype=torch.uint8),
        torch.rand(40, 1).half(),
        torch.rand(40, 1).half(),
        4,
    )
    found = write(tmp_path / "w", PackPlan.of(shape, "int4"), state | {"up.weight": own})
    read = unpack({part: found[f"up.{part}"] for part in ("codes", "scales", "minimums")}, 40, 4)
    assert isinstance(read, QuantizedWeight)
    assert torch.equal(read.codes, own.codes)
    assert torch.equal(read.scales, own.scales)


@pytest.mark.parametrize("name", ["embed.weight", "lm_head.weight"])
@pytest.mark.parametrize(
    ("precision", "kept"), [("int8", "lm_head.codes"), ("fp32", "embed.weight")]
)
def test_tied_embeddings_are_stored_once_whatever_the_source_calls_them(
    tmp_path: Path, name: str, precision: str, kept: str
) -> None:
    shape = skeleton()
    state = weights(shape)
    state[name] = state.pop("lm_head.weight")
    found = write(tmp_path / "w", PackPlan.of(shape, precision), state)
    assert {part for part in found if part.startswith(("embed", "lm_head"))} >= {kept}
    assert sum(part.endswith((".codes", "embed.weight")) for part in found) == (
        2 if precision == "int8" else 1
    )


def test_an_untied_embedding_is_kept_in_bf16(tmp_path: Path) -> None:
    shape = skeleton(
        tied=False, others={"norm.weight": (32,), "odd": (3,), "embed.weight": (10, 32)}
    )
    found = write(tmp_path / "w", PackPlan.of(shape, "int8"), weights(shape))
    assert found["embed.weight"].dtype == torch.bfloat16
    assert found["odd"].dtype == torch.float32


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    shape = skeleton()
    state = weights(shape)
    del state["up.weight"]
    with pytest.raises(ModelRefused, match=r"lacks 3 weights.*up\.codes") as refused:
        write(tmp_path / "w", PackPlan.of(shape, "int4"), state)
    assert refused.value.reason == "BrokenModel"


def test_a_weight_of_another_shape_is_refused() -> None:
    plan = PackPlan.of(skeleton(), "int8")
    with pytest.raises(ModelRefused, match=r"'up\.weight' has the shape \[8, 32\]"):
        plan.pack("up.weight", torch.zeros(8, 32))


def test_a_width_that_cannot_be_cut_points_to_fp32() -> None:
    shape = skeleton(linears={"up": (40, 48), "lm_head": (10, 32)})
    with pytest.raises(ModelRefused, match="use precision fp32") as refused:
        PackPlan.of(shape, "int8")
    assert refused.value.reason == "UnsupportedPrecision"
    assert PackPlan.of(shape, "fp32").linears == {}


MIXTURE = {
    "linears": {"up.0": (40, 32), "up.1": (40, 32), "lm_head": (10, 32)},
    "biases": frozenset(),
    "experts": {"up": 2},
}


@pytest.mark.parametrize("precision", ["int4", "int8", "bf16", "fp32"])
def test_every_expert_of_a_stack_is_a_linear_of_its_own(tmp_path: Path, precision: str) -> None:
    shape = skeleton(**MIXTURE)
    state = {name: weight for name, weight in weights(shape).items() if "up" not in name}
    state["up"] = torch.randn(2, 40, 32)
    plan = PackPlan.of(shape, precision)
    found = write(tmp_path / "w.safetensors", plan, state)
    if precision == "fp32":
        assert torch.equal(found["up"], state["up"])
        return
    bits = plan.linears["up.1"].bits
    for number in range(2):
        parts = {name: found[key] for name in PARTS if (key := f"up.{number}.{name}") in found}
        values = unpack(parts, 40, bits)
        dense = dequantize(values) if isinstance(values, QuantizedWeight) else values.float()
        assert (dense - state["up"][number]).abs().max() < {4: 0.3, 8: 0.03, 16: 0.02}[bits]


@pytest.mark.parametrize("precision", ["int4", "fp32"])
def test_a_stack_of_codes_is_kept_expert_by_expert(tmp_path: Path, precision: str) -> None:
    shape = skeleton(**MIXTURE)
    state: dict[str, Any] = {
        name: weight for name, weight in weights(shape).items() if "up" not in name
    }
    own = [quantize(torch.randn(40, 32), 4) for _ in range(2)]
    state["up"] = QuantizedWeight(
        torch.stack([each.codes for each in own]),
        torch.stack([each.scales for each in own]),
        torch.stack([each.minimums for each in own if each.minimums is not None]),
        4,
    )
    found = write(tmp_path / "w.safetensors", PackPlan.of(shape, precision), state)
    for number, expert in enumerate(own):
        if precision == "fp32":
            assert torch.equal(found["up"][number], dequantize(expert))
            continue
        read = unpack({name: found[f"up.{number}.{name}"] for name in PARTS}, 40, 4)
        assert isinstance(read, QuantizedWeight)
        assert torch.equal(read.codes, expert.codes)
        assert torch.equal(dequantize(read), dequantize(expert))


def test_a_stack_with_too_few_experts_is_refused() -> None:
    plan = PackPlan.of(skeleton(**MIXTURE), "int8")
    with pytest.raises(ModelRefused, match=r"'up' has the shape \[1, 40, 32\].*\[2, 40, 32\]"):
        plan.pack("up", torch.randn(1, 40, 32))
