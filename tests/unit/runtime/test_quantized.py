"""Weights in groups of 32: rounded as little as their bits allow, and packed without loss."""

from __future__ import annotations

import pytest
import torch

from tidegate_runtime.ops.packed import PackedLinear
from tidegate_runtime.ops.quantized import (
    QuantizedWeight,
    dequantize,
    pack,
    pack_dense,
    quantize,
    quantize_activations,
    unpack,
)


def a_weight(out: int = 40, inputs: int = 96) -> torch.Tensor:
    return torch.randn(out, inputs, generator=torch.Generator().manual_seed(1)) * 0.05


@pytest.mark.parametrize("bits", [8, 4])
def test_no_value_moves_by_more_than_half_a_step(bits: int) -> None:
    weight = a_weight()
    quantized = quantize(weight, bits)
    steps = quantized.scales.float().repeat_interleave(32, dim=1)
    # The scale itself is rounded to fp16, which may cost the outermost codes a little more.
    assert ((dequantize(quantized) - weight).abs() <= steps * 0.52).all()


def test_four_bits_use_their_whole_range() -> None:
    assert quantize(a_weight(), 4).codes.unique().tolist() == list(range(16))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("value", [0.0, 0.75])
def test_a_constant_group_keeps_its_value(bits: int, value: float) -> None:
    weight = torch.full((1, 32), value)
    assert torch.allclose(dequantize(quantize(weight, bits)), weight, rtol=1e-3)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("out", [16, 40])
def test_packing_loses_nothing(bits: int, out: int) -> None:
    quantized = quantize(a_weight(out), bits)
    found = unpack(pack(quantized), out, bits)
    assert isinstance(found, QuantizedWeight)
    assert torch.equal(found.codes, quantized.codes)
    assert torch.equal(found.scales, quantized.scales)
    assert (found.minimums is None) == (bits == 8)
    assert torch.equal(dequantize(found), dequantize(quantized))


def test_packing_dense_values_loses_nothing_of_bf16() -> None:
    weight = a_weight().bfloat16()
    found = unpack(pack_dense(weight), 40, 16)
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, weight)


def test_the_bytes_lie_as_the_kernels_read_them() -> None:
    codes = torch.arange(16 * 32).remainder(251).to(torch.uint8).reshape(16, 32)
    packed = pack(QuantizedWeight(codes, torch.ones(16, 1).half(), None, 8))["codes"]
    assert packed.shape == (1, 8, 16, 4)
    assert packed[0, 3, 5].tolist() == codes[5, 12:16].tolist()
    half = pack(
        QuantizedWeight(codes % 16, torch.ones(16, 1).half(), torch.zeros(16, 1).half(), 4)
    )["codes"]
    assert half.shape == (1, 4, 16, 4)
    assert (half[0, 1, 5] & 15).tolist() == (codes[5, 8:12] % 16).tolist()
    assert (half[0, 1, 5] >> 4).tolist() == (codes[5, 12:16] % 16).tolist()


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_rows_of_a_packed_weight_are_its_rows(bits: int) -> None:
    weight = a_weight()
    tensors = pack_dense(weight) if bits == 16 else pack(quantize(weight, bits))
    packed = PackedLinear(tensors, None, 40, 96, bits)
    wanted = torch.tensor([0, 39, 17, 17])
    assert torch.equal(packed.rows(wanted), packed.values()[wanted])


def test_inputs_are_rounded_to_255_steps_of_each_group() -> None:
    inputs = torch.randn(3, 64, generator=torch.Generator().manual_seed(2))
    inputs[1, :32] = 0.0
    rounded = quantize_activations(inputs)
    largest = inputs.reshape(3, 2, 32).abs().amax(-1, keepdim=True)
    assert ((rounded - inputs).reshape(3, 2, 32).abs() <= largest / 127 * 0.501).all()
    assert rounded[1, :32].eq(0).all()


def test_inputs_that_cannot_be_cut_into_groups_are_refused() -> None:
    with pytest.raises(ValueError, match=r"40 inputs .* groups of 32"):
        quantize(torch.zeros(16, 40), 8)
    with pytest.raises(ValueError, match="40 inputs"):
        pack_dense(torch.zeros(16, 40))


def test_other_bits_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="bits 3 is not supported; use 8 or 4"):
        quantize(torch.zeros(16, 32), 3)
