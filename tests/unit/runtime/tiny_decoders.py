"""Tiny random models, packed in memory, and what transformers makes of the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from tidegate_runtime.models.base import Decoder, StepBatch
from tidegate_runtime.models.experts import GATE_UP, expert_name, expert_stacks
from tidegate_runtime.models.native import NativeDecoder
from tidegate_runtime.models.operators import NativeOperators, Operators, TorchOperators
from tidegate_runtime.models.transformers import TransformersDecoder
from tidegate_runtime.models.weights import Weights
from tidegate_runtime.ops.native import Threads
from tidegate_runtime.ops.packed import PackedLinear
from tidegate_runtime.ops.quantized import pack, pack_dense, quantize

CONTEXT_TOKENS = 256
TINY = {
    "vocab_size": 300,
    "hidden_size": 96,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT_TOKENS,
    "initializer_range": 0.2,
}


def tiny_model(kind: str, **options: Any) -> Any:
    """A random model in float32 whose norms do something too."""
    torch.manual_seed(0)
    name = "Gemma3TextConfig" if kind == "Gemma3" else f"{kind}Config"
    config = getattr(transformers, name)(**{**TINY, **options})
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


def packed_weights(model: Any, bits: int) -> Weights:
    """The weights as an artifact holds them: every linear in `bits`; 32 leaves all dense."""
    linears, experts = {}, {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and bits != 32:
            linears[name] = packed(module.weight.data, module.bias, bits)
    for stack, (count, *_) in expert_stacks(model).items() if bits != 32 else ():
        experts[stack] = count
        for number, weight in enumerate(model.get_parameter(stack).data):
            linears[expert_name(stack, number)] = packed(weight, None, bits)
    tied = bool(model.config.tie_word_embeddings)
    tensors = {
        name: value.float().contiguous()
        for name, value in model.state_dict().items()
        if name.rpartition(".")[0] not in linears and name not in experts
    }
    if linears:
        embedding = tensors.pop("model.embed_tokens.weight")
        if not tied:
            tensors["model.embed_tokens.weight"] = embedding.bfloat16()
    return Weights(linears, tensors, tied, experts)


def packed(weight: torch.Tensor, bias: torch.Tensor | None, bits: int) -> PackedLinear:
    """One linear of an artifact."""
    return PackedLinear(
        tensors=pack_dense(weight) if bits == 16 else pack(quantize(weight, bits)),
        bias=None if bias is None else bias.data.float(),
        out=weight.shape[0],
        inputs=weight.shape[1],
        bits=bits,
    )


def write_artifact(root: Path, model: Any, weights: Weights) -> Path:
    """What of an artifact a decoder opens."""
    root.mkdir(exist_ok=True)
    model.config.save_pretrained(root)
    tensors = dict(weights.tensors)
    if weights.tied:
        tensors.pop("lm_head.weight", None)
    for name, linear in weights.linears.items():
        tensors |= {f"{name}.{part}": tensor for part, tensor in linear.tensors.items()}
        if linear.bias is not None:
            tensors[f"{name}.bias"] = linear.bias
    save_file(tensors, root / "weights.safetensors")
    manifest = {
        "tied": weights.tied,
        "context_tokens": CONTEXT_TOKENS,
        "linears": {
            name: {"bits": each.bits, "out": each.out, "in": each.inputs}
            for name, each in weights.linears.items()
        },
    }
    (root / "manifest.json").write_text(json.dumps(manifest))
    return root


def rounded_model(model: Any, weights: Weights) -> Any:
    """The same model in transformers, rounding weights, inputs and embeddings as we do."""
    embedding = model.get_input_embeddings()
    if weights.tied:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        embedding.weight.data = weights.linears["lm_head"].values()
    else:
        embedding.weight.data = embedding.weight.data.bfloat16().float()
    one_by_one = dict(weights.linears)
    for stack, count in weights.experts.items():
        experts = [one_by_one.pop(expert_name(stack, number)) for number in range(count)]
        model.get_parameter(stack).data = torch.stack([expert.values() for expert in experts])
        name, _, part = stack.rpartition(".")
        round_experts(model.get_submodule(name), part, experts[0])
    for name, linear in one_by_one.items():
        module = model.get_submodule(name)
        module.weight.data = linear.values()
        module.register_forward_pre_hook(lambda _, given, of=linear: (of.rounded(given[0]),))
    return model


def round_experts(module: Any, part: str, like: PackedLinear) -> None:
    """Let experts in transformers round what one of their weights multiplies."""
    if part == GATE_UP:
        module.register_forward_pre_hook(lambda _, given: (like.rounded(given[0]), *given[1:]))
    else:
        gate = module._apply_gate
        module._apply_gate = lambda both: like.rounded(gate(both))


def make_decoder(
    kind: str, config: Any, weights: Weights, kv: str = "fp32", threads: int = 2
) -> Decoder:
    """A decoder of one of `models.open.KINDS`, with a pool of 64 blocks."""
    made: Decoder
    if kind == "native":
        made = NativeDecoder(config, weights, threads=threads, kv=kv, context_tokens=CONTEXT_TOKENS)
    else:
        operators: Operators = TorchOperators()
        if kind == "transformers":
            operators = NativeOperators(Threads(threads))
        made = TransformersDecoder(
            config, weights, operators=operators, kv=kv, context_tokens=CONTEXT_TOKENS
        )
    made.allocate(64)
    return made


def ragged(*parts: tuple[list[int], int, list[int]]) -> StepBatch:
    """Sequences as (tokens, first position, blocks), with the logits of every row."""
    counts = [len(tokens) for tokens, _, _ in parts]
    width = max(len(blocks) for _, _, blocks in parts)
    return StepBatch(
        tokens=np.array([token for tokens, _, _ in parts for token in tokens], dtype=np.int32),
        positions=np.concatenate(
            [np.arange(first, first + len(tokens), dtype=np.int32) for tokens, first, _ in parts]
        ),
        starts=np.cumsum([0, *counts], dtype=np.int32),
        tables=np.array(
            [blocks + [0] * (width - len(blocks)) for _, _, blocks in parts], dtype=np.int32
        ),
        wanted=np.arange(sum(counts), dtype=np.int32),
    )


def logits_of(decoder: Decoder, *parts: tuple[list[int], int, list[int]]) -> torch.Tensor:
    """The logits of every row, in memory of their own."""
    return decoder.forward(ragged(*parts)).logits.clone()
