"""Random adapters of tiny models, made and saved by PEFT."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import torch

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def attach(model: Any, seed: int = 0, **options: Any) -> Any:
    """The model with a random adapter whose values bf16 holds exactly; alpha is twice the rank."""
    options = {"r": 4, "target_modules": ALL, "task_type": "CAUSAL_LM", **options}
    options.setdefault("lora_alpha", 2 * options["r"])
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers, at what PEFT calls
        adapted = peft.get_peft_model(model, peft.LoraConfig(**options))
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data.normal_(0, 0.1)
            weight.data.copy_(weight.data.bfloat16())
    return adapted.eval()


def merged(model: Any, directory: Path) -> Any:
    """The model with an adapter merged into its weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(model, str(directory)).merge_and_unload()


def save(adapted: Any, directory: Path) -> Path:
    """The adapter's files, as PEFT writes them."""
    with warnings.catch_warnings():
        # It would look the base model up on the hub, to see whether its vocabulary has grown.
        warnings.simplefilter("ignore")
        adapted.save_pretrained(directory, save_embedding_layers=False)
    return directory
