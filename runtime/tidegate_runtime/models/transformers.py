"""Any decoder that transformers knows, its linears and attention replaced by ours.

Slower than `models.native`, because every layer is Python, but it runs whatever has plain causal
attention; and, without compiled kernels, on torch alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import transformers

from tidegate_runtime.engine.kv_budget import KvShape
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import BLOCK_TOKENS, StepBatch, StepLogits
from tidegate_runtime.models.weights import Weights
from tidegate_runtime.ops import native, paged_attention, probe
from tidegate_runtime.ops.packed import PackedLinear


class TransformersDecoder:
    """See `models.base.Decoder`. `threads` run the compiled kernels; None for torch alone."""

    def __init__(
        self,
        config: Any,
        weights: Weights,
        *,
        threads: native.Threads | None,
        kv: str,
        context_tokens: int,
    ) -> None:
        paged_attention.register()
        probe.register()
        self._threads = threads
        self._kv_kind = kv
        self._model = _build(config, weights, threads)
        shape = probe.probe(self._model, context_tokens)
        self._model.set_attn_implementation(paged_attention.ATTENTION_NAME)
        self.kv = _with_precision(shape, kv)
        self.vocabulary_size = int(config.get_text_config().vocab_size)
        self._native_pools: list[native.KvPool] = []
        self._torch_pools: list[paged_attention.TorchPool] = []

    @property
    def _attends_natively(self) -> bool:
        fits = self.kv.key_dim == self.kv.value_dim and self.kv.key_dim % 16 == 0
        return self._threads is not None and fits

    def allocate(self, blocks: int) -> None:
        """Make the pool."""
        kv, kind = self.kv, self._kv_kind
        if self._attends_natively:
            self._native_pools = [
                native.KvPool(blocks, kv.kv_heads, kv.key_dim, kind) for _ in range(kv.layers)
            ]
        else:
            slots, dims = blocks * BLOCK_TOKENS, (kv.key_dim, kv.value_dim)
            self._torch_pools = [
                paged_attention.TorchPool(slots, kv.kv_heads, dims, kind) for _ in range(kv.layers)
            ]

    @torch.inference_mode()
    def forward(self, batch: StepBatch) -> StepLogits:
        """Run every row once."""
        # transformers wants one row to project; a lone chunk of a long prompt has none to give.
        wanted = batch.wanted if len(batch.wanted) else [0]
        output = self._model(
            input_ids=torch.from_numpy(batch.tokens).long().unsqueeze(0),
            position_ids=torch.from_numpy(batch.positions).long().unsqueeze(0),
            use_cache=False,
            logits_to_keep=torch.as_tensor(wanted, dtype=torch.long),
            paged=self._cache(batch),
        )
        return StepLogits.of(output.logits[0, : len(batch.wanted)].float())

    def _cache(self, batch: StepBatch) -> paged_attention.Cache:
        if self._threads is not None and self._native_pools:
            return paged_attention.NativeCache(
                self._threads, self._native_pools, batch, self._kv_kind
            )
        return paged_attention.TorchCache(self._torch_pools, batch)


class TorchModule(torch.nn.Module):
    """A linear over packed weights on torch alone: it multiplies with their values."""

    def __init__(self, packed: PackedLinear) -> None:
        super().__init__()
        self._packed = packed
        self._values = packed.values()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`[…, in]` float32 → `[…, out]` float32."""
        rounded = self._packed.rounded(inputs)
        return torch.nn.functional.linear(rounded, self._values, self._packed.bias)


class NativeModule(torch.nn.Module):
    """A linear over packed weights on the compiled kernels."""

    def __init__(self, packed: PackedLinear, threads: native.Threads) -> None:
        super().__init__()
        self._linear = native.Linear(packed)
        self._threads = threads

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`[…, in]` float32 → `[…, out]` float32."""
        rows = self._linear.apply(self._threads, inputs.flatten(0, -2))
        return rows.reshape(*inputs.shape[:-1], -1)


class PackedEmbedding(torch.nn.Module):
    """Embeddings read from the packed weight that also projects to logits."""

    def __init__(self, packed: PackedLinear) -> None:
        super().__init__()
        self._packed = packed

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[1, tokens]` → `[1, tokens, hidden]` float32."""
        return self._packed.rows(tokens.flatten()).reshape(*tokens.shape, -1)


def _build(config: Any, weights: Weights, threads: native.Threads | None) -> Any:
    """The model in float32 with the recording attention. Raises ModelRefused."""
    kinds = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) not in kinds:
        raise ModelRefused(
            "UnsupportedModel",
            f"transformers has no text generator of type {config.model_type!r}; serve a decoder",
        )
    # A placeholder takes no memory: its module is replaced below.
    states = {
        f"{name}.weight": torch.zeros(1).expand(linear.out, linear.inputs)
        for name, linear in weights.linears.items()
    }
    biases = {
        f"{name}.bias": linear.bias
        for name, linear in weights.linears.items()
        if linear.bias is not None
    }
    tied = weights.tied and "lm_head" in weights.linears
    if tied:
        states["model.embed_tokens.weight"] = states["lm_head.weight"]
    states |= biases | {name: tensor.float() for name, tensor in weights.tensors.items()}
    model = kinds[type(config)].from_pretrained(
        None,
        config=config,
        state_dict=states,
        dtype=torch.float32,
        attn_implementation=probe.PROBE_NAME,
    )
    if tied:
        model.set_input_embeddings(PackedEmbedding(weights.linears["lm_head"]))
    for name, linear in weights.linears.items():
        module = TorchModule(linear) if threads is None else NativeModule(linear, threads)
        model.set_submodule(name, module)
    return model.eval()


def _with_precision(shape: KvShape, kv: str) -> KvShape:
    plain = native.kv_shape(shape.layers, shape.kv_heads, shape.key_dim, kv)
    return dataclasses.replace(plain, value_dim=shape.value_dim)
