"""What sets the families of the compiled decoder apart from Llama."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate_runtime.ops.abi import ACTIVATIONS
from tidegate_runtime.ops.rope import rotary_dim


@dataclass(frozen=True)
class Family:
    """`norm_offset` is added to the weights of every norm; `wide_embeddings` are multiplied with
    the root of their size; `out_norms` also normalise what attention and feed-forward add;
    `fused` weights hold query, key and value, or gate and up, one after another.
    """

    norm_offset: float = 0.0
    wide_embeddings: bool = False
    out_norms: bool = False
    fused: bool = False


_LLAMA = Family()
_GEMMA = Family(norm_offset=1.0, wide_embeddings=True)
_GEMMA2 = Family(norm_offset=1.0, wide_embeddings=True, out_norms=True)
FAMILIES: Mapping[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
    "phi3": Family(fused=True),
}


def why_not_native(config: Any) -> str | None:
    """Why the kernels cannot run a model; None when they can."""
    head_dim, act = head_dim_of(config), activation(config)
    checks: list[tuple[bool, str]] = [
        (config.model_type in FAMILIES, f"its family is {config.model_type}"),
        (act in ACTIVATIONS, f"its activation is {act}"),
        (head_dim % 16 == 0, f"its heads have {head_dim} components, no multiple of 16"),
        (rotary_dim(config, head_dim) % 2 == 0, "it rotates an odd number of components"),
        (
            not getattr(config, "use_bidirectional_attention", None),
            "its attention is not causal",
        ),
    ]
    return next((why for holds, why in checks if not holds), None)


def activation(config: Any) -> str:
    """The name of the gate's activation, however the family spells it."""
    return str(getattr(config, "hidden_activation", None) or config.hidden_act)


def head_dim_of(config: Any) -> int:
    """The components of one head."""
    given = getattr(config, "head_dim", None)
    return int(given or config.hidden_size // config.num_attention_heads)


def attention_scale(config: Any) -> float:
    """What scores are multiplied with."""
    scalar = float(getattr(config, "query_pre_attn_scalar", None) or head_dim_of(config))
    return float(scalar**-0.5)


def layer_type(config: Any, layer: int) -> str | None:
    """The kind of one layer, where a model has several."""
    kinds = getattr(config, "layer_types", None)
    return None if kinds is None else str(kinds[layer])


def window_of(config: Any, layer: int) -> int:
    """How many tokens back a layer looks; 0 for all."""
    window = getattr(config, "sliding_window", None)
    if not window or layer_type(config, layer) not in (None, "sliding_attention"):
        return 0
    return int(window)
