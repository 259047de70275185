"""Any decoder that transformers knows, its linears and attention replaced by ours.

On the processor it is slower than `models.native`, because every layer is Python, but it runs
whatever has plain causal attention; and, without compiled kernels, on torch alone. On a GPU it is
the only decoder.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import transformers

from tidegate_runtime.engine.kv_budget import KvShape
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import StepBatch, StepLogits
from tidegate_runtime.models.operators import Operators, PackedModule
from tidegate_runtime.models.weights import Weights
from tidegate_runtime.ops import native, paged_attention, probe


class TransformersDecoder:
    """See `models.base.Decoder`; `operators` say on which device and with what."""

    def __init__(
        self,
        config: Any,
        weights: Weights,
        *,
        operators: Operators,
        kv: str,
        context_tokens: int,
    ) -> None:
        paged_attention.register()
        probe.register()
        self._operators = operators
        self._kv_kind = kv
        self._model = _build(config, weights, operators)
        shape = probe.probe(self._model, context_tokens)
        self._model.set_attn_implementation(paged_attention.ATTENTION_NAME)
        self.kv = _with_precision(shape, kv)
        self.vocabulary_size = int(config.get_text_config().vocab_size)

    def allocate(self, blocks: int) -> None:
        """Make the pool."""
        self._operators.allocate(self.kv, self._kv_kind, blocks)

    @torch.inference_mode()
    def forward(self, batch: StepBatch) -> StepLogits:
        """Run every row once."""
        step = self._operators.step(batch)
        output = self._model(
            input_ids=step.tokens.unsqueeze(0),
            position_ids=step.positions.unsqueeze(0),
            use_cache=False,
            logits_to_keep=step.wanted,
            paged=step.cache,
        )
        return StepLogits.of(output.logits[0, : len(batch.wanted)].float())


class PackedEmbedding(torch.nn.Module):
    """Embeddings read from the packed weight that also projects to logits."""

    def __init__(self, head: PackedModule) -> None:
        super().__init__()
        self._rows = head.rows

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[1, tokens]` → `[1, tokens, hidden]`."""
        return self._rows(tokens.flatten()).reshape(*tokens.shape, -1)


def _build(config: Any, weights: Weights, operators: Operators) -> Any:
    """The model on its device with the recording attention. Raises ModelRefused."""
    kinds = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) not in kinds:
        raise ModelRefused(
            "UnsupportedModel",
            f"transformers has no text generator of type {config.model_type!r}; serve a decoder",
        )
    dtype = operators.dtype
    # A placeholder takes no memory: its module is replaced below.
    states = {
        f"{name}.weight": torch.zeros(1, dtype=dtype).expand(linear.out, linear.inputs)
        for name, linear in weights.linears.items()
    }
    biases = {
        f"{name}.bias": linear.bias.to(dtype)
        for name, linear in weights.linears.items()
        if linear.bias is not None
    }
    tied = weights.tied and "lm_head" in weights.linears
    if tied:
        states["model.embed_tokens.weight"] = states["lm_head.weight"]
    states |= biases | {name: tensor.to(dtype) for name, tensor in weights.tensors.items()}
    model = kinds[type(config)].from_pretrained(
        None,
        config=config,
        state_dict=states,
        dtype=dtype,
        attn_implementation=probe.PROBE_NAME,
    )
    for name, linear in weights.linears.items():
        model.set_submodule(name, operators.linear(linear))
    if tied:
        model.set_input_embeddings(PackedEmbedding(model.get_submodule("lm_head")))
    return model.to(operators.device).eval()


def _with_precision(shape: KvShape, kv: str) -> KvShape:
    plain = native.kv_shape(shape.layers, shape.kv_heads, shape.key_dim, kv)
    return dataclasses.replace(plain, value_dim=shape.value_dim)
