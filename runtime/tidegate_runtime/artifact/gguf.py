"""GGUF files: read once, with the codes of their quantized tensors as they are.

transformers knows the names of each architecture and how its rows are permuted, but reads the file
three times in Python, which takes 20 s for a vocabulary of 49,152. Here one reader serves all of
it, and tensors come one by one.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType
from transformers import modeling_gguf_pytorch_utils as converter

from tidegate_runtime.artifact.guard import guarded
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.ops.quantized import QuantizedWeight, dequantize

_STORED_BITS = {
    GGMLQuantizationType.F32: 32,
    GGMLQuantizationType.F16: 16,
    GGMLQuantizationType.BF16: 16,
    GGMLQuantizationType.Q8_0: 8,
    GGMLQuantizationType.Q4_0: 4,
    GGMLQuantizationType.Q4_1: 4,
    GGMLQuantizationType.Q4_K: 4,
    GGMLQuantizationType.IQ4_NL: 4,
    GGMLQuantizationType.IQ4_XS: 4,
}


@dataclass(frozen=True)
class GgufParts:
    """What a file says of the model. `stored_bits` is what most of its weights are kept in."""

    reader: FastReader
    settings: Mapping[str, Any]
    config: Any
    tokenizer: Any
    generation: Mapping[str, Any]

    @property
    def stored_bits(self) -> int:
        return stored_bits(self.reader)

    def tensors(self, model: Any) -> Iterator[tuple[str, torch.Tensor | QuantizedWeight]]:
        """Every tensor of `model` (an empty one) by state name, in float32 or in its codes."""
        architecture = str(self.reader.fields["general.architecture"].contents())
        processor = converter.TENSOR_PROCESSORS.get(architecture, converter.TensorProcessor)(
            config=dict(self.settings)
        )
        # It is built anew for every module of the model otherwise.
        name_map = functools.cache(gguf.get_tensor_name_map)
        with _replaced(gguf, "get_tensor_name_map", name_map):
            names = converter.get_gguf_hf_weights_map(model, processor)
        merged: dict[str, torch.Tensor] = {}
        for tensor in self.reader.tensors:
            codes = _codes(tensor)
            values = _dense(tensor) if codes is None else dequantize(codes).numpy()
            made = processor.process(
                weights=values,
                name=tensor.name,
                tensor_key_mapping=names,
                parsed_parameters={"tensors": merged},
            )
            if made.name in names:
                yield names[made.name], _exact(codes, values, made.weights)
        yield from merged.items()


def open_gguf(path: Path) -> GgufParts:
    """Read all but the tensors. Raises ModelRefused."""
    return guarded(path, lambda: _open(path))


def stored_bits(reader: GGUFReader) -> int:
    """The bits that most weights of a file have; 16 for a format that is not known here."""
    count: Counter[int] = Counter()
    for tensor in reader.tensors:
        count[_STORED_BITS.get(tensor.tensor_type, 16)] += int(tensor.n_elements)
    return count.most_common(1)[0][0]


class FastReader(GGUFReader):  # type: ignore[misc]
    """`GGUFReader` for large vocabularies: its arrays are cut in one pass over plain memory."""

    @property
    def data(self) -> Any:
        """The file's bytes; without numpy's memmap, whose every slice costs microseconds."""
        return self._bytes

    @data.setter
    def data(self, mapped: Any) -> None:
        self._bytes = mapped.view(np.ndarray)
        self._view = memoryview(self._bytes)

    def _get_field_parts(
        self, orig_offs: int, raw_type: int
    ) -> tuple[int, list[Any], list[int], list[GGUFValueType]]:
        if raw_type != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)  # type: ignore[no-any-return]
        head = [self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)]
        kind, count = GGUFValueType(int(head[0][0])), int(head[1][0])
        start = orig_offs + 12
        if kind is GGUFValueType.STRING:
            end, items = self._strings(start, count)
        elif kind in self.gguf_scalar_to_np:
            numbers = self._get(start, self.gguf_scalar_to_np[kind], count)
            end, items = start + numbers.nbytes, list(numbers.reshape(-1, 1))
        else:
            raise ValueError(f"an array of {kind.name} in the metadata is not supported")
        types = [GGUFValueType.ARRAY, kind] if count else [GGUFValueType.ARRAY]
        return end - orig_offs, [*head, *items], list(range(2, 2 + count)), types

    def _strings(self, start: int, count: int) -> tuple[int, list[Any]]:
        items, at = [], start
        for _ in range(count):
            length = int.from_bytes(self._view[at : at + 8], "little")
            items.append(self._bytes[at + 8 : at + 8 + length])
            at += 8 + length
        return at, items


def _open(path: Path) -> GgufParts:
    reader = FastReader(path)
    if reader.byte_order != "I":
        raise ModelRefused("UnsupportedModel", f"{str(path)!r} was written for big-endian machines")
    # transformers opens the file anew for each of its questions; let it find the file read already.
    with _replaced(gguf, "GGUFReader", lambda *_: reader):
        read = converter.load_gguf_checkpoint(str(path))
        settings = read["config"]
        config = transformers.AutoConfig.for_model(**settings)
        with _replaced(converter, "load_gguf_checkpoint", lambda *_, **__: read):
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                path.parent, gguf_file=path.name, trust_remote_code=False
            )
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    found = {name: getattr(config, name, None) for name in names}
    generation = {name: value for name, value in found.items() if value is not None}
    return GgufParts(reader, settings, config, tokenizer, generation)


@contextmanager
def _replaced(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    """Give a module's function another body for a while; a build is a process of its own."""
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)


def _codes(tensor: Any) -> QuantizedWeight | None:
    """The codes of a matrix in a format whose groups are ours; the layouts are ggml's."""
    if len(tensor.shape) != 2:
        return None
    rows = tensor.data.shape[0]
    blocks = torch.from_numpy(np.array(tensor.data))
    if tensor.tensor_type is GGMLQuantizationType.Q4_1:
        blocks = blocks.view(rows, -1, 20)
        scales = blocks[..., :4].contiguous().view(torch.float16)
        minimums = scales[..., 1].contiguous()
        return QuantizedWeight(_nibbles(blocks[..., 4:]), scales[..., 0].contiguous(), minimums, 4)
    if tensor.tensor_type is GGMLQuantizationType.Q4_0:
        blocks = blocks.view(rows, -1, 18)
        scales = blocks[..., :2].contiguous().view(torch.float16)[..., 0].contiguous()
        return QuantizedWeight(_nibbles(blocks[..., 2:]), scales, scales * -8, 4)
    if tensor.tensor_type is GGMLQuantizationType.Q8_0:
        blocks = blocks.view(rows, -1, 34)
        scales = blocks[..., :2].contiguous().view(torch.float16)[..., 0].contiguous()
        return QuantizedWeight((blocks[..., 2:] ^ 128).flatten(1), scales, None, 8)
    return None


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    """`[rows, groups, 16]` → `[rows, groups * 32]`: the low halves of a group come first."""
    return torch.cat((packed & 15, packed >> 4), dim=-1).flatten(1)


def _dense(tensor: Any) -> Any:
    return gguf.dequantize(tensor.data, tensor.tensor_type)


def _exact(
    codes: QuantizedWeight | None, before: Any, after: Any
) -> torch.Tensor | QuantizedWeight:
    """The codes in the order that transformers gave the rows, where each row is still there."""
    if codes is not None and after is before:
        return codes
    values = torch.from_numpy(np.array(after, dtype=np.float32))
    if codes is None or after.shape != before.shape:
        return values
    places = {row.tobytes(): place for place, row in enumerate(np.ascontiguousarray(before))}
    order = [places.get(row.tobytes()) for row in np.ascontiguousarray(after)]
    if None in order:
        return values
    index = torch.tensor(order)
    return QuantizedWeight(
        codes.codes[index],
        codes.scales[index],
        None if codes.minimums is None else codes.minimums[index],
        codes.bits,
    )
