"""What a plan reckons an adapter to take is what it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.runtime.tiny_decoders import make_decoder, packed_weights, tiny_model

from tidegate.spec import Precision
from tidegate_controlplane.domain.adapters import adapter_bytes
from tidegate_controlplane.models.adapters import read_updates
from tidegate_runtime.adapters.load import AdapterLoader


@pytest.mark.parametrize(
    ("kind", "bits", "precision"),
    [("native", 16, Precision.BF16), ("native", 8, Precision.INT8), ("torch", 32, Precision.FP32)],
)
@pytest.mark.parametrize("rank", [3, 16, 40])
def test_planned_bytes_are_those_in_memory(
    save_adapter: Callable[..., Path],
    tmp_path: Path,
    kind: str,
    bits: int,
    precision: Precision,
    rank: int,
) -> None:
    model = tiny_model("Llama", tie_word_embeddings=True)
    decoder = make_decoder(kind, model.config, packed_weights(model, bits))
    loader = AdapterLoader(decoder, tmp_path / "cache")
    source = str(save_adapter("a", r=rank, target_modules=("q_proj", "k_proj", "down_proj")))
    adapter = loader.adapt(source, loader.read(source, loader.fetch(source)))
    planned = adapter_bytes(read_updates(source), precision, on_gpu=False)
    assert planned == adapter.weights_bytes
