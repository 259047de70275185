"""Adapters of SmolLM2, as PEFT would write them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

LAYERS, WIDTH, RANK = 30, 576, 4


def write_adapter(path: Path, *, rank: int = RANK, width: int = WIDTH) -> Path:
    """One that leads the model astray; it fits with SmolLM2's own `width`, and says rank 4."""
    path.mkdir()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": 64,
        "target_modules": ["o_proj"],
    }
    (path / "adapter_config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"base_model.model.model.layers.{layer}.self_attn.o_proj.lora_{part}.weight": torch.randn(
            shape, generator=generator
        )
        for layer in range(LAYERS)
        for part, shape in (("A", (rank, width)), ("B", (width, rank)))
    }
    save_file(tensors, path / "adapter_model.safetensors")
    return path
