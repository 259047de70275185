"""The Llama family on the compiled kernels: a step is one call, without Python per layer."""

from __future__ import annotations

from typing import Any

from tidegate_runtime.models.base import StepBatch, StepLogits
from tidegate_runtime.models.weights import Weights
from tidegate_runtime.ops.native import (
    KV_TYPES,
    DecoderStep,
    KvPool,
    LayerStruct,
    Linear,
    LinearStruct,
    ModelStruct,
    Threads,
    address,
    kv_shape,
)
from tidegate_runtime.ops.rope import check_rope, rope_table, rotary_dim

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})


def why_not_native(config: Any) -> str | None:
    """Why the kernels cannot run a model; None when they can."""
    head_dim = _head_dim(config)
    checks: list[tuple[bool, str]] = [
        (config.model_type in FAMILIES, f"its family is {config.model_type}"),
        (config.hidden_act == "silu", f"its activation is {config.hidden_act}"),
        (head_dim % 16 == 0, f"its heads have {head_dim} components, no multiple of 16"),
        (rotary_dim(config, head_dim) % 2 == 0, "it rotates an odd number of components"),
    ]
    return next((why for holds, why in checks if not holds), None)


class NativeDecoder:
    """See `models.base.Decoder`. `kv` names the precision of keys and values.

    Raises ModelRefused for rotary frequencies that follow the longest sequence.
    """

    def __init__(
        self, config: Any, weights: Weights, *, threads: int, kv: str, context_tokens: int
    ) -> None:
        check_rope(config.model_type, config, context_tokens)
        self.vocabulary_size = int(config.vocab_size)
        self._config = config
        self._weights = weights
        self._threads = Threads(threads)
        self._kv = kv
        self._rope = rope_table(config, _head_dim(config), context_tokens)
        self._step: DecoderStep | None = None
        self.kv = kv_shape(
            int(config.num_hidden_layers), int(config.num_key_value_heads), _head_dim(config), kv
        )

    def allocate(self, blocks: int) -> None:
        """Make the pool. Memory is taken as blocks are first written."""
        pools = [
            KvPool(blocks, self.kv.kv_heads, self.kv.key_dim, self._kv)
            for _ in range(self.kv.layers)
        ]
        layers = (LayerStruct * self.kv.layers)(
            *(self._layer(index, pool) for index, pool in enumerate(pools))
        )
        kept = (self._weights, self._rope, pools, layers)
        self._step = DecoderStep(self._threads, self._model(layers), kept)

    def forward(self, batch: StepBatch) -> StepLogits:
        """Run every row once. Raises MemoryError; RuntimeError before `allocate`."""
        if self._step is None:
            raise RuntimeError("allocate the key/value pool before the first forward")
        return self._step(batch)

    def _model(self, layers: Any) -> ModelStruct:
        config, tensors = self._config, self._weights.tensors
        head_dim = self.kv.key_dim
        embedding = None if self._weights.tied else tensors["model.embed_tokens.weight"]
        return ModelStruct(
            hidden=int(config.hidden_size),
            intermediate=int(config.intermediate_size),
            layers=self.kv.layers,
            vocabulary=self.vocabulary_size,
            heads=int(config.num_attention_heads),
            kv_heads=self.kv.kv_heads,
            head_dim=head_dim,
            rotary_dim=rotary_dim(config, head_dim),
            kv_type=KV_TYPES[self._kv],
            epsilon=float(config.rms_norm_eps),
            attention_scale=head_dim**-0.5,
            rope=address(self._rope),
            embedding=address(embedding),
            final_norm=address(tensors["model.norm.weight"]),
            head=self._linear("lm_head"),
            layer=layers,
        )

    def _layer(self, index: int, pool: KvPool) -> LayerStruct:
        prefix = f"model.layers.{index}"
        attention = {
            field: self._linear(f"{prefix}.self_attn.{name}_proj")
            for field, name in (("query", "q"), ("key", "k"), ("value", "v"), ("output", "o"))
        }
        gates = {name: self._linear(f"{prefix}.mlp.{name}_proj") for name in ("gate", "up", "down")}
        return LayerStruct(
            **attention,
            **gates,
            attention_norm=self._norm(f"{prefix}.input_layernorm"),
            mlp_norm=self._norm(f"{prefix}.post_attention_layernorm"),
            query_norm=self._norm(f"{prefix}.self_attn.q_norm"),
            key_norm=self._norm(f"{prefix}.self_attn.k_norm"),
            cache=pool.struct,
            window=_window(self._config, index),
        )

    def _linear(self, name: str) -> LinearStruct:
        return Linear(self._weights.linears[name]).struct

    def _norm(self, name: str) -> int | None:
        return address(self._weights.tensors.get(f"{name}.weight"))


def _head_dim(config: Any) -> int:
    given = getattr(config, "head_dim", None)
    return int(given or config.hidden_size // config.num_attention_heads)


def _window(config: Any, layer: int) -> int:
    """How many tokens back a layer looks; 0 for all."""
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if not window or (kinds is not None and kinds[layer] != "sliding_attention"):
        return 0
    return int(window)
