"""Tiny random models in a layout of quantized linears, and what they stand for."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.unit.runtime.artifact.quantized_layouts import Layout, Stored
from tests.unit.runtime.tiny_decoders import tiny_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}


def write_checkpoint(path: Path, layout: Layout, more: Collection[str] = ()) -> Any:
    """A tiny Llama in a layout, and in it the modules `more`; the same model with the values that
    it stands for.
    """
    model = tiny_model("Llama", **SIZES)
    state, parts = model.state_dict(), {}
    for name, module in model.named_modules():
        if (type(module) is torch.nn.Linear and name != "lm_head") or name in more:
            del state[f"{name}.weight"]
            parts[name], values = layout.write(*module.weight.shape)
            module.weight.data = values
    sizes = {name: tuple(model.get_submodule(name).weight.shape) for name in parts}
    path.mkdir()
    model.config.save_pretrained(path)
    _name_format(path, layout, "LlamaForCausalLM")
    _save(path, layout, state, parts, sizes)
    words = Tokenizer(WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(path)
    return model


def quantize_published(path: Path, plain: Path, layout: Layout) -> int:
    """Let the weights of a model's projections at `plain`, experts included, be values that a
    layout holds; and write the same to `path` in that layout, under the names as published. Returns
    how many are of experts.
    """
    torch.manual_seed(0)
    state, parts, sizes = load_file(plain / "model.safetensors"), {}, {}
    dense = dict(state)
    for name, tensor in state.items():
        layer = name.removesuffix(".weight")
        if tensor.dim() == 2 and not layer.endswith(("embed_tokens", "lm_head", ".gate")):
            sizes[layer] = (tensor.shape[0], tensor.shape[1])
            parts[layer], values = layout.write(*sizes[layer])
            del dense[name]
            state[name] = values.contiguous()
    path.mkdir()
    for file in plain.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    save_file(state, plain / "model.safetensors", {"format": "pt"})
    _name_format(path, layout)
    _save(path, layout, dense, parts, sizes)
    return sum(".experts." in layer for layer in parts)


def _name_format(path: Path, layout: Layout, architecture: str | None = None) -> None:
    config = json.loads((path / "config.json").read_text())
    config["quantization_config"] = layout.config
    if architecture:
        config["architectures"] = [architecture]
    (path / "config.json").write_text(json.dumps(config))


def _save(
    path: Path,
    layout: Layout,
    dense: Stored,
    parts: dict[str, Stored],
    sizes: dict[str, tuple[int, int]],
) -> None:
    stored = {f"{layer}.{part}": each for layer, own in parts.items() for part, each in own.items()}
    metadata = {"format": "pt"}
    if layout.described is not None:
        described = {name: {"_type": "Tensor"} for name in dense}
        described |= {f"{name}.weight": layout.described(*size) for name, size in sizes.items()}
        metadata |= {name: json.dumps(told) for name, told in described.items()}
        metadata["tensor_names"] = json.dumps(list(described))
    tensors = {name: tensor.contiguous() for name, tensor in (dense | stored).items()}
    save_file(tensors, path / "model.safetensors", metadata)
