"""Any decoder that transformers knows, its linears and attention replaced by ours.

On the processor it is slower than `models.native`, because every layer is Python, but it runs
whatever has plain causal attention; and, without compiled kernels, on torch alone. On a GPU it is
the only decoder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
import transformers

from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.engine.kv_budget import KvShape
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.adapted import ModuleAdapter, adaptable, adapted
from tidegate_runtime.models.base import StepBatch, StepLogits
from tidegate_runtime.models.experts import expert_name, packed_experts
from tidegate_runtime.models.layers import WatchedNorm, bare, first_layers, watch_norm
from tidegate_runtime.models.operators import Operators, PackedModule
from tidegate_runtime.models.weights import Weights
from tidegate_runtime.ops import paged_attention, probe
from tidegate_runtime.ops.kv_pool import kv_shape
from tidegate_runtime.ops.low_rank import LowRank
from tidegate_runtime.ops.packed import PackedLinear


class TransformersDecoder:
    """See `models.base.Decoder`; `operators` say on which device and with what.

    `adapt` changes the model before it first runs; `model` is it.
    """

    def __init__(
        self,
        config: Any,
        weights: Weights,
        *,
        operators: Operators,
        kv: str,
        context_tokens: int,
        adapt: Callable[[Any], None] | None = None,
    ) -> None:
        paged_attention.register()
        probe.register()
        self._operators = operators
        self._kv_kind = kv
        self.model = _build(config, weights, operators)
        self._linears = weights.linears
        if adapt is not None:
            adapt(self.model)
        shape = probe.probe(self.model, context_tokens)
        self.model.set_attn_implementation(paged_attention.ATTENTION_NAME)
        self.kv = _with_precision(shape, kv)
        text = config.get_text_config()
        self.vocabulary_size = int(text.vocab_size)
        self.hidden_size = int(text.hidden_size)
        self.layers = int(text.num_hidden_layers)
        self._norm: WatchedNorm | None = None

    def allocate(self, blocks: int) -> None:
        """Make the pool."""
        self._operators.allocate(self.kv, self._kv_kind, blocks)

    def pool_tensors(self) -> list[torch.Tensor]:
        """The pool's memory."""
        return self._operators.pool_tensors()

    def adaptable(self) -> Mapping[str, tuple[int, int]]:
        """See `models.base.Decoder`."""
        return adaptable(self.model, self._linears)

    def adapt(self, adapter_id: str, updates: Mapping[str, LowRank]) -> Adapter:
        """See `models.base.Decoder`."""
        return ModuleAdapter.on(self._operators, adapter_id, updates)

    @torch.inference_mode()
    def forward(self, batch: StepBatch) -> StepLogits:
        """Run every row once."""
        logits = self._logits(self.model, batch)
        if self._norm is None:
            return StepLogits.of(logits)
        wanted = torch.from_numpy(batch.wanted).to(self._norm.given.device)
        return StepLogits.of(logits, self._norm.given[0, wanted].float())

    def watch(self) -> None:
        """From now on `forward` gives the hidden states after the last layer, too.

        Raises ModelRefused (UnsupportedSpeculation) for a model without a list of layers.
        """
        if self._norm is None:
            self._norm = watch_norm(self.model)

    @torch.inference_mode()
    def hidden(self, batch: StepBatch, layers: int) -> torch.Tensor:
        """Run the first `layers` layers. Raises ModelRefused as `watch` does."""
        shallow = bare(first_layers(self.model, layers))
        hidden: torch.Tensor = self._run(shallow, batch).last_hidden_state[0].float()
        return hidden[torch.from_numpy(batch.wanted).to(hidden.device)]

    @torch.inference_mode()
    def early(self, batch: StepBatch, layers: int) -> StepLogits:
        """Run the first `layers` layers, the final norm and the head. Raises as `watch` does."""
        return StepLogits.of(self._logits(first_layers(self.model, layers), batch))

    @torch.inference_mode()
    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """The embeddings `[rows, hidden]` of tokens `[rows]`, as they are stored."""
        embedding = self.model.get_input_embeddings()
        embedded = embedding(tokens.to(self._operators.device).unsqueeze(0))
        rows: torch.Tensor = embedded[0].float() / getattr(embedding, "embed_scale", 1.0)
        return rows

    def linear(self, packed: PackedLinear) -> torch.nn.Module:
        """A `PackedModule` on the model's device."""
        return self._operators.linear(packed)

    def _logits(self, model: Any, batch: StepBatch) -> torch.Tensor:
        """`[wanted, vocabulary]`."""
        logits: torch.Tensor = self._run(model, batch).logits[0, : len(batch.wanted)]
        return logits.float()

    def _run(self, model: Any, batch: StepBatch) -> Any:
        """What a model, or its decoder alone, makes of every row."""
        step = self._operators.step(batch)
        adapters = adapted(self.model, batch) if batch.adapters else nullcontext()
        with adapters:
            return model(
                input_ids=step.tokens.unsqueeze(0),
                position_ids=step.positions.unsqueeze(0),
                use_cache=False,
                logits_to_keep=step.wanted,
                paged=step.cache,
            )


class PackedEmbedding(torch.nn.Module):
    """Embeddings read from the packed weight that also projects to logits, times `scale`."""

    def __init__(self, head: PackedModule, scale: float) -> None:
        super().__init__()
        self._rows = head.rows
        self._scale = scale

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[1, tokens]` → `[1, tokens, hidden]`."""
        rows = self._rows(tokens.flatten()).reshape(*tokens.shape, -1)
        return rows if self._scale == 1.0 else rows * self._scale


def _build(config: Any, weights: Weights, operators: Operators) -> Any:
    """The model on its device with the recording attention. Raises ModelRefused."""
    kinds = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) not in kinds:
        raise ModelRefused(
            "UnsupportedModel",
            f"transformers has no text generator of type {config.model_type!r}; serve a decoder",
        )
    dtype = operators.dtype
    states = _placeholders(weights, dtype)
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
    modules = {name: operators.linear(linear) for name, linear in weights.linears.items()}
    stacks = {
        stack: [modules.pop(expert_name(stack, number)) for number in range(count)]
        for stack, count in weights.experts.items()
    }
    for name, module in (*modules.items(), *packed_experts(model, stacks)):
        model.set_submodule(name, module)
    if tied:
        scale = embedding_scale(model)
        model.set_input_embeddings(PackedEmbedding(model.get_submodule("lm_head"), scale))
    return model.to(operators.device).eval()


def _placeholders(weights: Weights, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Weights that take no memory, by state name; the modules that have them are replaced."""
    nothing = torch.zeros(1, dtype=dtype)
    shapes = {name: (linear.out, linear.inputs) for name, linear in weights.linears.items()}
    states = {}
    for stack, count in weights.experts.items():
        each = [shapes.pop(expert_name(stack, number)) for number in range(count)]
        states[stack] = nothing.expand(count, *each[0])
    return states | {f"{name}.weight": nothing.expand(shape) for name, shape in shapes.items()}


def embedding_scale(model: Any) -> float:
    """What a model multiplies its embeddings with. Raises ModelRefused where that is not all."""
    embedding = model.get_input_embeddings()
    if type(embedding) is torch.nn.Embedding:
        return 1.0
    scale = getattr(embedding, "scalar_embed_scale", None)
    if scale is None:
        raise ModelRefused(
            "UnsupportedModel",
            f"{type(model).__name__} has embeddings of kind {type(embedding).__name__}, which are "
            "not honoured where they are the last layer too; use precision fp32",
        )
    return float(scale)


def _with_precision(shape: KvShape, kv: str) -> KvShape:
    plain = kv_shape(shape.layers, shape.kv_heads, shape.key_dim, kv)
    return dataclasses.replace(plain, value_dim=shape.value_dim)
