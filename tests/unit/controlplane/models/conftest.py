"""Tiny models, real in every byte that a plan reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFWriter
from safetensors.numpy import save_file

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "vocab_size": 10,
}
MakeDirectory = Callable[..., Path]
MakeGguf = Callable[..., Path]


@pytest.fixture
def directory(tmp_path: Path) -> MakeDirectory:
    """Makes a directory with a config, safetensors weights of 640 + 6 elements, and a README."""

    def make(name: str = "model", fill: float = 0.0, **config: Any) -> Path:
        path = tmp_path / name
        path.mkdir()
        (path / "config.json").write_text(json.dumps(CONFIG | config))
        (path / "README.md").write_text("a model")
        tensors = {
            "embed": np.full((10, 64), fill, dtype=np.float32),
            "head": np.full((2, 3), fill, dtype=np.float32),
        }
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        return path

    return make


@pytest.fixture
def gguf(tmp_path: Path) -> MakeGguf:
    """Makes a GGUF file with one tensor of 640 elements and ten tokens."""

    def make(name: str = "tiny.gguf", heads: int = 4) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        writer = GGUFWriter(path, "llama")
        writer.add_context_length(256)
        writer.add_embedding_length(64)
        writer.add_block_count(3)
        writer.add_head_count(heads)
        writer.add_head_count_kv(2)
        writer.add_token_list([f"t{index}" for index in range(10)])
        writer.add_tensor("token_embd.weight", np.zeros((10, 64), dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return make
