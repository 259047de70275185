"""Run a model once with a recording attention: its cache shape, and whether we would honour it.

A model whose attention asks for more than causal attention with a sliding window and a soft cap
(sinks, chunks, a mask of its own) would give wrong tokens through `paged_attention`, so it is
refused by name.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch.nn.functional import scaled_dot_product_attention

from tidegate_runtime.engine.kv_budget import KvShape
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.ops.rope import check_rope

PROBE_NAME = "tidegate_probe"
SLIDING = "sliding_attention"
_PROBE_TOKENS = 4
_HARMLESS = frozenset(
    {
        "cache_position",
        "cu_seq_lens_k",
        "cu_seq_lens_q",
        "dropout",
        "output_attentions",
        "output_hidden_states",
        "position_embeddings",
        "position_ids",
        "return_dict",
        "use_cache",
    }
)


@dataclass(frozen=True)
class _Call:
    """What one layer asked of its attention."""

    layer: int | None
    causal: bool
    key_shape: tuple[int, int]
    value_shape: tuple[int, int]
    window: int | None
    demands: tuple[str, ...]


def probe(model: Any, context_tokens: int) -> KvShape:
    """The cache shape of a model loaded with `PROBE_NAME` as its attention implementation.

    Raises ModelRefused (UnsupportedModel) naming what is not honoured.
    """
    name = type(model).__name__
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        raise _unsupported(name, "its forward cannot choose rows of logits")
    calls: list[_Call] = []
    tokens = torch.zeros((1, _PROBE_TOKENS), dtype=torch.long, device=model.device)
    positions = torch.arange(_PROBE_TOKENS, device=model.device).unsqueeze(0)
    with torch.inference_mode():
        model(
            input_ids=tokens,
            position_ids=positions,
            use_cache=False,
            logits_to_keep=1,
            probe_calls=calls,
        )
    return judge(name, model.config.get_text_config(), calls, context_tokens, model.dtype.itemsize)


def judge(
    name: str, config: Any, calls: list[_Call], context_tokens: int, item_bytes: int
) -> KvShape:
    """Turn the recorded calls into a cache shape, or refuse. Raises ModelRefused."""
    layers = int(config.num_hidden_layers)
    if [call.layer for call in calls] != list(range(layers)):
        raise _unsupported(
            name, f"{len(calls)} of its {layers} layers use the attention interface once"
        )
    kinds = list(getattr(config, "layer_types", None) or ())
    if unknown := set(kinds) - {"full_attention", SLIDING}:
        raise _unsupported(name, f"it has layers of kind {', '.join(sorted(unknown))}")
    if not all(call.causal for call in calls):
        raise _unsupported(name, "its attention is not causal; serve it with task 'embed'")
    demands = sorted({demand for call in calls for demand in call.demands})
    if demands:
        raise _unsupported(name, f"its attention wants {', '.join(demands)}")
    untold = [call for call, kind in zip(calls, kinds, strict=False) if kind == SLIDING]
    window = int(getattr(config, "sliding_window", None) or 0)
    if 0 < window < context_tokens and any(call.window is None for call in untold):
        raise ModelRefused(
            "UnsupportedModel",
            f"{name} does not tell its attention of its sliding window of {window} tokens; set "
            f"context_tokens to {window} or less",
        )
    check_rope(name, config, context_tokens)
    shapes = {(call.key_shape, call.value_shape) for call in calls}
    if len(shapes) != 1:
        raise _unsupported(name, "its layers have keys of different shapes")
    (kv_heads, key_dim), (_, value_dim) = shapes.pop()
    return KvShape(layers, kv_heads, key_dim, value_dim, item_bytes)


def _recording_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    probe_calls: list[_Call],
    **demanded: Any,
) -> tuple[torch.Tensor, None]:
    del softcap
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    demands = [item for item, value in demanded.items() if _demands(item, value)]
    if attention_mask is not None:
        demands.append("a mask of its own")
    probe_calls.append(
        _Call(
            layer=getattr(module, "layer_idx", None),
            causal=bool(causal),
            key_shape=(key.shape[1], key.shape[3]),
            value_shape=(value.shape[1], value.shape[3]),
            window=sliding_window,
            demands=tuple(demands),
        )
    )
    attended = scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=True
    )
    return attended.transpose(1, 2), None


def _demands(name: str, value: Any) -> bool:
    return value is not None and value is not False and name not in _HARMLESS


def _unsupported(name: str, why: str) -> ModelRefused:
    return ModelRefused(
        "UnsupportedModel",
        f"{name} cannot be served correctly: {why}; use a decoder with causal attention (Llama, "
        "Qwen, Mistral, Gemma, Phi, Mixtral, …)",
    )


def register() -> None:
    """Make the recording attention known to transformers under `PROBE_NAME`."""
    transformers.AttentionInterface.register(PROBE_NAME, _recording_attention)
