"""Llama and its like on the compiled kernels: a step is one call, without Python per layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.models.base import StepBatch, StepLogits
from tidegate_runtime.models.family import (
    FAMILIES,
    activation,
    attention_scale,
    head_dim_of,
    layer_type,
    window_of,
)
from tidegate_runtime.models.operators import NativeModule
from tidegate_runtime.models.weights import Weights
from tidegate_runtime.ops.abi import ACTIVATIONS, LayerStruct, LinearStruct, ModelStruct, address
from tidegate_runtime.ops.kv_pool import KV_TYPES, KvPool, kv_shape
from tidegate_runtime.ops.low_rank import HEAD, LowRank, pack_adapter
from tidegate_runtime.ops.native import DecoderStep, Linear, Threads
from tidegate_runtime.ops.packed import PackedLinear
from tidegate_runtime.ops.rope import check_rope, rope_table, rotary_dim


class NativeDecoder:
    """See `models.base.Decoder`. `kv` names the precision of keys and values.

    Raises ModelRefused for rotary frequencies that follow the longest sequence.
    """

    def __init__(
        self, config: Any, weights: Weights, *, threads: int, kv: str, context_tokens: int
    ) -> None:
        check_rope(config.model_type, config, context_tokens)
        self.vocabulary_size = int(config.vocab_size)
        self.hidden_size = int(config.hidden_size)
        self.layers = int(config.num_hidden_layers)
        self._config = config
        self._family = FAMILIES[config.model_type]
        self._weights = weights
        self._threads = Threads(threads)
        self._kv = kv
        kinds = {layer_type(config, layer) for layer in range(int(config.num_hidden_layers))}
        self._ropes = {
            kind: rope_table(config, head_dim_of(config), context_tokens, kind) for kind in kinds
        }
        self._linears: list[PackedLinear] = []
        self._norms: dict[str, torch.Tensor] = {}
        self._pools: list[KvPool] = []
        self._step: DecoderStep | None = None
        self._watched = False
        self.kv = kv_shape(
            *(int(config.num_hidden_layers), int(config.num_key_value_heads)),
            *(head_dim_of(config), kv),
        )

    def allocate(self, blocks: int) -> None:
        """Make the pool. Memory is taken as blocks are first written."""
        self._pools = [
            KvPool(blocks, self.kv.kv_heads, self.kv.key_dim, self._kv)
            for _ in range(self.kv.layers)
        ]
        layers = (LayerStruct * self.kv.layers)(
            *(self._layer(index, pool) for index, pool in enumerate(self._pools))
        )
        kept = (self._weights, self._linears, self._ropes, self._norms, self._pools, layers)
        self._step = DecoderStep(self._threads, self._model(layers), kept)
        self._step.watched = self._watched

    def pool_tensors(self) -> list[torch.Tensor]:
        """The pool's memory."""
        return [tensor for pool in self._pools for tensor in pool.tensors]

    def forward(self, batch: StepBatch) -> StepLogits:
        """Run every row once. Raises MemoryError; RuntimeError before `allocate`."""
        return self._ready()(batch)

    def watch(self) -> None:
        """From now on `forward` gives the hidden states after the last layer, too."""
        self._watched = True
        if self._step is not None:
            self._step.watched = True

    def hidden(self, batch: StepBatch, layers: int) -> torch.Tensor:
        """Run the first `layers` layers. Raises as `forward` does."""
        return self._ready().hidden(batch, layers)

    def early(self, batch: StepBatch, layers: int) -> StepLogits:
        """Run the first `layers` layers, the final norm and the head. Raises as `forward` does."""
        return self._ready()(batch, layers)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """The embeddings `[rows, hidden]` of tokens `[rows]`, as they are stored."""
        if self._weights.tied:
            return self._weights.linears["lm_head"].rows(tokens)
        return self._weights.tensors["model.embed_tokens.weight"][tokens].float()

    def linear(self, packed: PackedLinear) -> torch.nn.Module:
        """A `NativeModule` on the decoder's threads."""
        return NativeModule(packed, self._threads)

    def _ready(self) -> DecoderStep:
        if self._step is None:
            raise RuntimeError("allocate the key/value pool before the first forward")
        return self._step

    def adaptable(self) -> Mapping[str, tuple[int, int]]:
        """See `models.base.Decoder`."""
        return {name: (linear.out, linear.inputs) for name, linear in self._weights.linears.items()}

    def adapt(self, adapter_id: str, updates: Mapping[str, LowRank]) -> Adapter:
        """See `models.base.Decoder`."""
        layers: list[dict[str, LowRank]] = [{} for _ in range(self.kv.layers)]
        for name, update in updates.items():
            if name != HEAD:
                parts = name.split(".")  # model.layers.<number>.….<linear>
                layers[int(parts[2])] |= self._apart_again(parts[-1], update)
        return pack_adapter(adapter_id, layers, updates.get(HEAD))

    def _apart_again(self, linear: str, update: LowRank) -> dict[str, LowRank]:
        """The update of a linear, or those of the linears that a fused one holds."""
        outputs, keys = len(update.up), self.kv.kv_heads * self.kv.key_dim
        sizes = {
            "qkv_proj": {"q_proj": outputs - 2 * keys, "k_proj": keys, "v_proj": keys},
            "gate_up_proj": {"gate_proj": outputs // 2, "up_proj": outputs // 2},
        }.get(linear, {linear: outputs})
        ups = torch.split(update.up, list(sizes.values()))
        return {name: LowRank(update.down, up) for name, up in zip(sizes, ups, strict=True)}

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
            activation=ACTIVATIONS[activation(config)],
            epsilon=float(config.rms_norm_eps),
            attention_scale=attention_scale(config),
            embedding_scale=config.hidden_size**0.5 if self._family.wide_embeddings else 1.0,
            attention_softcap=getattr(config, "attn_logit_softcapping", None) or 0.0,
            logit_softcap=getattr(config, "final_logit_softcapping", None) or 0.0,
            embedding=address(embedding),
            final_norm=self._norm("model.norm"),
            head=_struct(self._weights.linears["lm_head"]),
            layer=layers,
        )

    def _layer(self, index: int, pool: KvPool) -> LayerStruct:
        prefix = f"model.layers.{index}"
        linears = self._fused(prefix) if self._family.fused else self._apart(prefix)
        self._linears += linears.values()
        after = f"{prefix}.post_attention_layernorm"
        norms = {"attention_norm": f"{prefix}.input_layernorm", "mlp_norm": after}
        if self._family.out_norms:
            norms |= {
                "attention_out_norm": after,
                "mlp_norm": f"{prefix}.pre_feedforward_layernorm",
                "mlp_out_norm": f"{prefix}.post_feedforward_layernorm",
            }
        norms |= {f"{part}_norm": f"{prefix}.self_attn.{part[0]}_norm" for part in ("query", "key")}
        return LayerStruct(
            **{field: _struct(linear) for field, linear in linears.items()},
            **{field: self._norm(name) for field, name in norms.items()},
            rope=address(self._ropes[layer_type(self._config, index)]),
            cache=pool.struct,
            window=window_of(self._config, index),
        )

    def _apart(self, prefix: str) -> dict[str, PackedLinear]:
        """The linears of a layer, each a weight of its own."""
        linears = self._weights.linears
        attention = {"query": "q", "key": "k", "value": "v", "output": "o"}
        found = {
            field: linears[f"{prefix}.self_attn.{name}_proj"] for field, name in attention.items()
        }
        return found | {
            name: linears[f"{prefix}.mlp.{name}_proj"] for name in ("gate", "up", "down")
        }

    def _fused(self, prefix: str) -> dict[str, PackedLinear]:
        """The same where two weights hold several."""
        linears, config = self._weights.linears, self._config
        queries = int(config.num_attention_heads) * self.kv.key_dim
        keys, inner = self.kv.kv_heads * self.kv.key_dim, int(config.intermediate_size)
        projected = linears[f"{prefix}.self_attn.qkv_proj"]
        gated = linears[f"{prefix}.mlp.gate_up_proj"]
        return {
            "query": projected.outputs(0, queries),
            "key": projected.outputs(queries, keys),
            "value": projected.outputs(queries + keys, keys),
            "output": linears[f"{prefix}.self_attn.o_proj"],
            "gate": gated.outputs(0, inner),
            "up": gated.outputs(inner, inner),
            "down": linears[f"{prefix}.mlp.down_proj"],
        }

    def _norm(self, name: str) -> int | None:
        """Where the weight of a norm lies, if there is one, with the family's offset."""
        weight = self._weights.tensors.get(f"{name}.weight")
        if weight is None or not self._family.norm_offset:
            return address(weight)
        self._norms[name] = weight + self._family.norm_offset
        return address(self._norms[name])


def _struct(linear: PackedLinear) -> LinearStruct:
    return Linear(linear).struct
