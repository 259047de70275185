"""A model larger than the memory it is given says what it says in enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.runtime.test_gpu_decoder import with_values
from tests.unit.runtime.tiny_decoders import (
    CONTEXT_TOKENS,
    logits_of,
    packed_weights,
    ragged,
    tiny_model,
    write_artifact,
)

from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.open import open_decoder
from tidegate_runtime.models.transformers import TransformersDecoder
from tidegate_runtime.models.triton import TritonOperators
from tidegate_runtime.models.weights import Weights
from tidegate_runtime.offload.mapped import MappedLayers
from tidegate_runtime.offload.open import offload_of
from tidegate_runtime.offload.residency import residency
from tidegate_runtime.ops.triton.cache import Tiling

PROMPT = [(7 * i * i + 3 * i + 11) % 300 for i in range(40)]
BLOCKS = [9, 3, 17]
LARGE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "head_dim": 64,
    "num_hidden_layers": 8,
    "tie_word_embeddings": True,
}
PAGES = 64 * 1024
"""The kernel maps what it has cached around a page that is touched, in windows of 64 KiB."""


def test_all_layers_stay_where_there_is_room_for_them() -> None:
    assert residency([10] * 8, 20, 100).streamed == ()


def test_as_few_layers_as_possible_are_streamed_and_they_lie_apart() -> None:
    chosen = residency([10] * 8, 20, 90)
    assert (chosen.streamed, chosen.step_bytes) == ((1, 4, 6), 30)
    assert residency([10] * 8, 20, 40).streamed == tuple(range(8))


def test_room_for_less_than_two_layers_is_refused_with_what_it_takes() -> None:
    with pytest.raises(ModelRefused, match=r"offload_bytes 39 .* take 40 bytes; raise it to that"):
        residency([10] * 8, 20, 39)


def sizes(weights: Weights) -> tuple[int, int]:
    """All of the packed linears, and those of one layer."""
    each = {
        name: sum(tensor.nbytes for tensor in linear.tensors.values())
        for name, linear in weights.linears.items()
    }
    return sum(each.values()), sum(
        count for name, count in each.items() if name.startswith("model.layers.0.")
    )


def mapped_bytes(file: Path) -> int:
    """What of a file this process has in memory (proc(5), /proc/pid/smaps)."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line.split()[0].endswith(":"):
            inside = line.endswith(str(file.resolve()))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


def test_streamed_layers_give_the_same_logits_within_their_bound(tmp_path: Path) -> None:
    model = tiny_model("Llama", **LARGE)
    weights = packed_weights(model, 8)
    root = write_artifact(tmp_path, model, weights)
    whole, layer = sizes(weights)
    bound = whole - 3 * layer
    options: Any = {"threads": 1, "kv": "fp32", "kind": "transformers"}
    decoder = open_decoder(root, offload_bytes=bound, **options)
    assert isinstance(decoder, TransformersDecoder)
    decoder.allocate(32)
    file, seen = tmp_path / "weights.safetensors", []
    for each in decoder.model.get_decoder().layers:
        each.register_forward_hook(lambda *_: seen.append(mapped_bytes(file)))
    found = logits_of(decoder, (PROMPT, 0, BLOCKS))
    again = logits_of(decoder, ([5], len(PROMPT), BLOCKS))
    assert layer < max(seen) < bound + PAGES
    alone = open_decoder(root, **options)
    alone.allocate(32)
    assert torch.equal(found, logits_of(alone, (PROMPT, 0, BLOCKS)))
    assert torch.equal(again, logits_of(alone, ([5], len(PROMPT), BLOCKS)))


def test_weights_that_are_not_in_the_file_are_never_dropped(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(1 << 16))
    with pytest.raises(RuntimeError, match="layer 3 is not mapped from"):
        MappedLayers(file, {3: [torch.ones(1 << 16)]})


def test_on_a_device_layers_are_copied_in_turn_and_give_the_same_logits() -> None:
    small = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    model = tiny_model("Llama", **small, **heads)
    weights = packed_weights(model, 8)
    whole, layer = sizes(weights)
    offload = offload_of(weights, whole + 10_000 - layer)
    assert offload is not None
    device = torch.device("cpu")
    operators = TritonOperators(
        device,
        torch.float32,
        4,
        Tiling(rows=16, tokens=16, split_tokens=16),
        hosted=offload.linears,
    )
    decoder = TransformersDecoder(
        model.config,
        weights,
        operators=operators,
        kv="fp32",
        context_tokens=CONTEXT_TOKENS,
        adapt=lambda made: offload.from_host(device, made),
    )
    decoder.allocate(32)
    wanted = with_values(model, weights)(torch.tensor([PROMPT[:2]])).logits[0]
    # What a run that stops early has brought is not what the next one wants first.
    decoder.early(ragged(([5], 0, BLOCKS)), 3)
    found = logits_of(decoder, (PROMPT[:2], 0, BLOCKS))
    assert torch.allclose(found, wanted, atol=1e-3)


def test_weights_that_are_not_packed_are_not_streamed(tmp_path: Path) -> None:
    model = tiny_model("Llama")
    root = write_artifact(tmp_path, model, packed_weights(model, 32))
    with pytest.raises(ModelRefused, match="use precision bf16, int8 or int4"):
        open_decoder(root, threads=1, offload_bytes=1000)


def test_without_kernels_nothing_is_streamed(tmp_path: Path) -> None:
    model = tiny_model("Llama", **LARGE)
    weights = packed_weights(model, 8)
    root = write_artifact(tmp_path, model, weights)
    with pytest.raises(ModelRefused, match="install a C"):
        open_decoder(root, threads=1, kind="torch", offload_bytes=sizes(weights)[0] - 1)
