"""Which quantized checkpoints may be served. Pure: a configuration and metadata in, a verdict out.

transformers writes a torchao checkpoint's tensor subclasses taken apart: `<layer>._weight_qdata`,
`<layer>._weight_scale` and others are plain tensors, and the metadata of each safetensors file has
for `<layer>.weight` a JSON object with the subclass, its attributes, and the names of its parts.
Source: torchao 0.18, `prototype/safetensors`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

METHODS = ("gptq", "awq", "compressed-tensors", "fp8", "torchao", "bitsandbytes")
"""Values of `quant_method` that are read."""
BITSANDBYTES_BITS = 8
"""Those that its weights are served in: evenly spaced codes of 4 bits cannot hold NF4 or FP4."""
CODES = "qdata"
"""What torchao calls the part that holds a tensor's codes."""
_BITS = {"Int4Tensor": 4, "Int4TilePackedTo4dTensor": 4, "Int8Tensor": 8, "Float8Tensor": 8}
_INTX = "IntxUnpackedToInt8Tensor"
_INTX_BITS = {f"int{bits}": 4 if bits <= 4 else 8 for bits in range(1, 9)}
_PLAIN = "Tensor"
_BYTE = "uint8"
_WIDE_TILES = '"int4_tile_packed_ntile": 16'


@dataclass(frozen=True)
class TorchaoTensor:
    """One weight that torchao quantized: its subclass, and the bits that hold its codes."""

    kind: str
    bits: int
    shape: tuple[int, ...] | None
    """That of the weight where the subclass packs it, else None: its codes have it."""


def method_fault(config: Mapping[str, Any]) -> str | None:
    """Why the quantization of a model with this `config.json` is not read; None when it is."""
    said = config.get("quantization_config")
    if not said:
        return None
    method = str(said.get("quant_method", "an unknown method"))
    if method not in METHODS:
        return f"is quantized by {method!r}, which is not read"
    storage = said.get("bnb_4bit_quant_storage") or _BYTE
    if method == "bitsandbytes" and storage != _BYTE:
        return f"has the bnb_4bit_quant_storage {storage!r}, and {_BYTE!r} is read"
    return None


def torchao_tensors(metadata: Mapping[str, str]) -> dict[str, TorchaoTensor]:
    """The quantized weights by state name, from the metadata of all files of weights.

    Raises ValueError with what is not read.
    """
    if "tensor_names" not in metadata:
        raise ValueError(
            "has torchao weights without the metadata that describes them (another version of "
            "torchao, or another program, wrote them), which is not read"
        )
    found = {}
    for name, text in metadata.items():
        said = _description(text) if "." in name else {}
        if (kind := str(said.get("_type", _PLAIN))) != _PLAIN:
            found[name] = _tensor(name, kind, _mapping(said.get("_data")))
    return found


def torchao_fault(quant_type: Any, tensors: Mapping[str, TorchaoTensor]) -> str | None:
    """Why weights like these cannot be told from others; None when they can."""
    tiles = any(each.kind == "Int4TilePackedTo4dTensor" for each in tensors.values())
    if tiles and _WIDE_TILES in json.dumps(quant_type):
        return "has torchao tiles of 16 outputs (ROCm's), and those of 8 are read"
    return None


def codes_name(weight: str) -> str:
    """The stored tensor that holds the codes of a weight with this state name."""
    layer, _, parameter = weight.rpartition(".")
    return f"{layer}._{parameter}_{CODES}"


def most_bits(tensors: Iterable[TorchaoTensor]) -> int | None:
    """Of most quantized weights, counted by tensors; None when there are none."""
    count = Counter(each.bits for each in tensors)
    return count.most_common(1)[0][0] if count else None


def _description(text: str) -> Mapping[str, Any]:
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    return _mapping(said)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _tensor(name: str, kind: str, data: Mapping[str, Any]) -> TorchaoTensor:
    bits = _intx_bits(data) if kind == _INTX else _BITS.get(kind)
    if bits is None:
        raise ValueError(f"has {name!r} as a torchao {kind}, which is not read")
    if not name.endswith(".weight"):
        raise ValueError(f"has {name!r} quantized by torchao, and only weights of layers are read")
    shape = data.get("shape")
    known = isinstance(shape, list) and all(type(size) is int for size in shape)
    return TorchaoTensor(kind, bits, tuple(shape) if shape and known else None)


def _intx_bits(data: Mapping[str, Any]) -> int | None:
    return _INTX_BITS.get(str(_mapping(data.get("target_dtype")).get("_data")))
