"""Packed weights in one safetensors file that the kernels read where it is mapped.

The safetensors format: 8 bytes with the length of a JSON header, the header, the tensors without
gaps. Here the header is padded so that the tensors start at a multiple of 64 bytes, and those whose
size is one too come first; so they all lie on cache lines.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch

from tidegate_runtime.artifact.checkpoint import Skeleton
from tidegate_runtime.artifact.manifest import BITS, HEAD_BITS, LinearEntry
from tidegate_runtime.artifact.safetensors import misshapen
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.experts import expert_name
from tidegate_runtime.ops.quantized import (
    GROUP,
    QuantizedWeight,
    dequantize,
    pack,
    pack_dense,
    quantize,
)

LINE_BYTES = 64
_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.uint8: "U8",
}


@dataclass(frozen=True)
class TensorPlan:
    """The shape and type of one tensor of the file."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class PackPlan:
    """What the file will hold, known before a weight is read: `(state name → its tensors)`."""

    precision: str
    skeleton: Skeleton
    linears: Mapping[str, LinearEntry]

    @classmethod
    def of(cls, skeleton: Skeleton, precision: str) -> PackPlan:
        """Raises ModelRefused when a layer cannot be cut into groups."""
        if precision == "fp32":
            return cls(precision, skeleton, {})
        linears = {}
        for name, (out, inputs) in skeleton.linears.items():
            if inputs % GROUP:
                raise ModelRefused(
                    "UnsupportedPrecision",
                    f"precision {precision!r}: the layer {name!r} has {inputs} inputs, which "
                    f"cannot be cut into groups of {GROUP}; use precision fp32",
                )
            bits = (HEAD_BITS if name == skeleton.head else BITS)[precision]
            linears[name] = LinearEntry.model_validate({"bits": bits, "out": out, "in": inputs})
        return cls(precision, skeleton, linears)

    def tensors(self) -> dict[str, TensorPlan]:
        """Every tensor of the file, in its order."""
        found: dict[str, TensorPlan] = {}
        for name, entry in self.linears.items():
            empty = torch.empty(entry.out, entry.inputs, device="meta")
            for part, tensor in _packed(empty, entry.bits).items():
                found[f"{name}.{part}"] = TensorPlan(tuple(tensor.shape), tensor.dtype)
        for name, shape in self._dense().items():
            found[name] = TensorPlan(shape, self._dtype(name))
        return dict(sorted(found.items(), key=lambda item: -_alignment(item[1].size_bytes)))

    def pack(self, name: str, weight: torch.Tensor | QuantizedWeight) -> dict[str, torch.Tensor]:
        """The tensors that a weight with this state name becomes; none when it is not served."""
        skeleton = self.skeleton
        shared = {f"{skeleton.embedding}.weight", f"{skeleton.head}.weight"}
        if skeleton.tied and name in shared:
            name = f"{skeleton.head if self.linears else skeleton.embedding}.weight"
        if self.linears and name in skeleton.experts:
            return self._pack_experts(name, weight)
        layer = name.removesuffix(".weight")
        entry = self.linears.get(layer) if name.endswith(".weight") else None
        if entry is not None:
            if tuple(_shape(weight)) != (entry.out, entry.inputs):
                raise misshapen(name, _shape(weight), (entry.out, entry.inputs))
            packed = _packed(weight, entry.bits)
            return {f"{layer}.{part}": tensor for part, tensor in packed.items()}
        shape = self._dense().get(name)
        if shape is None:
            return {}
        values = as_values(weight)
        if tuple(values.shape) != shape:
            raise misshapen(name, tuple(values.shape), shape)
        return {name: values.to(self._dtype(name))}

    def _pack_experts(
        self, stack: str, weight: torch.Tensor | QuantizedWeight
    ) -> dict[str, torch.Tensor]:
        """The tensors of every expert of a stack `[experts, out, in]`."""
        count, shape = self.skeleton.experts[stack], _shape(weight)
        if shape[0] != count:
            entry = self.linears[expert_name(stack, 0)]
            raise misshapen(stack, shape, (count, entry.out, entry.inputs))
        packed: dict[str, torch.Tensor] = {}
        for number in range(count):
            expert = (
                weight.of_stack(number) if isinstance(weight, QuantizedWeight) else weight[number]
            )
            packed |= self.pack(f"{expert_name(stack, number)}.weight", expert)
        return packed

    def _dense(self) -> dict[str, tuple[int, ...]]:
        """State name → shape of what keeps its values; the biases of linear layers included."""
        skeleton = self.skeleton
        found: dict[str, tuple[int, ...]] = {
            f"{name}.bias": (skeleton.linears[name][0],) for name in skeleton.biases
        }
        if not self.linears:
            shapes = dict(skeleton.linears)
            for stack, count in skeleton.experts.items():
                each = [shapes.pop(expert_name(stack, number)) for number in range(count)]
                found[stack] = (count, *each[0])
            found |= {f"{name}.weight": shape for name, shape in shapes.items()}
            if skeleton.tied:
                found[f"{skeleton.embedding}.weight"] = found.pop(f"{skeleton.head}.weight")
        return {**found, **skeleton.others}

    def _dtype(self, name: str) -> torch.dtype:
        untied_embedding = name == f"{self.skeleton.embedding}.weight"
        return torch.bfloat16 if untied_embedding and self.linears else torch.float32


class PackedFile:
    """The weights file while it is written: tensors come in any order, each goes to its place."""

    def __init__(self, path: Path, tensors: Mapping[str, TensorPlan]) -> None:
        header, self._starts = _layout(tensors)
        self._tensors = tensors
        self._missing = set(tensors)
        self._path = path
        self._file = path.open("wb")
        self._file.write(header)

    def __enter__(self) -> PackedFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write one tensor. Raises OSError when the disk is full."""
        plan = self._tensors[name]
        if (tuple(tensor.shape), tensor.dtype) != (plan.shape, plan.dtype):
            raise ValueError(f"{name} is {tensor.shape} {tensor.dtype}, planned was {plan}")
        self._file.seek(self._starts[name])
        self._file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        self._missing.discard(name)

    def finish(self, source: Path) -> None:
        """Raises ModelRefused (BrokenModel) when the source lacked weights."""
        if self._missing:
            names = sorted(self._missing)
            raise ModelRefused(
                "BrokenModel",
                f"{str(source)!r} lacks {len(names)} weights that its architecture needs "
                f"({', '.join(names[:3])}); fetch the model again, or use one of the right kind",
            )
        self._file.flush()


def as_values(weight: torch.Tensor | QuantizedWeight) -> torch.Tensor:
    """The numbers of a weight."""
    return dequantize(weight) if isinstance(weight, QuantizedWeight) else weight


def _packed(weight: torch.Tensor | QuantizedWeight, bits: int) -> dict[str, torch.Tensor]:
    if isinstance(weight, QuantizedWeight):
        if weight.bits == bits:
            return pack(weight)
        weight = dequantize(weight)
    return pack_dense(weight) if bits == 16 else pack(quantize(weight, bits))


def _layout(tensors: Mapping[str, TensorPlan]) -> tuple[bytes, dict[str, int]]:
    """The file's first bytes, and where each tensor starts."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    places, at = {}, 0
    for name, plan in tensors.items():
        end = at + plan.size_bytes
        entries[name] = {
            "dtype": _NAMES[plan.dtype],
            "shape": list(plan.shape),
            "data_offsets": [at, end],
        }
        places[name], at = at, end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-(8 + len(header)) % LINE_BYTES)
    prefix = struct.pack("<Q", len(header)) + header
    return prefix, {name: len(prefix) + place for name, place in places.items()}


def _alignment(size: int) -> int:
    """The largest power of two up to a cache line that divides a size."""
    return min(LINE_BYTES, size & -size) or LINE_BYTES


def _shape(weight: torch.Tensor | QuantizedWeight) -> tuple[int, ...]:
    return tuple(weight.codes.shape if isinstance(weight, QuantizedWeight) else weight.shape)
