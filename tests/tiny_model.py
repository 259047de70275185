"""The files of a model that is small, whole, and never run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "vocab_size": 10,
}


def write_tiny_model(path: Path) -> Path:
    """Make the directory `path` with a configuration and weights."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    save_file({"embed": np.zeros((10, 64), dtype=np.float32)}, path / "model.safetensors")
    return path
