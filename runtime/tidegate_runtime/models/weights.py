"""The weights of an artifact, mapped into memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from tidegate_runtime.ops.packed import PackedLinear

_PARTS = ("codes", "scales", "minimums")


@dataclass(frozen=True)
class Weights:
    """What a decoder is made of: packed linears by module name, other tensors by parameter name.

    `experts` are the stacks of a mixture by parameter name, and how many linears each has (see
    models/experts.py).
    """

    linears: Mapping[str, PackedLinear]
    tensors: Mapping[str, torch.Tensor]
    tied: bool
    experts: Mapping[str, int] = field(default_factory=dict)


def read_weights(path: Path, manifest: Mapping[str, Any]) -> Weights:
    """The tensors of a `weights.safetensors`; pages are read from the file as they are used."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    linears = {}
    for name, shape in manifest["linears"].items():
        parts = {part: tensors.pop(f"{name}.{part}", None) for part in _PARTS}
        linears[name] = PackedLinear(
            tensors={part: tensor for part, tensor in parts.items() if tensor is not None},
            bias=tensors.pop(f"{name}.bias", None),
            out=int(shape["out"]),
            inputs=int(shape["in"]),
            bits=int(shape["bits"]),
        )
    experts = manifest.get("experts", {})  # which artifacts of older versions have not
    return Weights(linears, tensors, bool(manifest["tied"]), experts)
