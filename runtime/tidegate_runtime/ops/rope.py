"""Rotary position embeddings as a table (Su et al. 2021), whatever the scaling."""

from __future__ import annotations

from typing import Any

import torch

from tidegate_runtime.errors import ModelRefused


def rope_parameters(config: Any, layer_type: str | None = None) -> dict[str, Any]:
    """The rotary part of a model's configuration, however its age spells it; that of the layers of
    a type where the types differ.
    """
    given = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    found = dict(given.get(layer_type) or given)
    found.setdefault("rope_theta", getattr(config, "rope_theta", None) or 10000.0)
    found["rope_type"] = found.get("rope_type") or found.get("type") or "default"
    return found


def rotary_dim(config: Any, head_dim: int) -> int:
    """How many components of a head are rotated."""
    factor = rope_parameters(config).get("partial_rotary_factor") or getattr(
        config, "partial_rotary_factor", None
    )
    return int(head_dim * (factor or 1.0))


def rope_table(
    config: Any, head_dim: int, positions: int, layer_type: str | None = None
) -> torch.Tensor:
    """Cosine and sine of every position and pair: float32 `[positions, 2, rotary_dim / 2]`.

    Raises KeyError for a scaling that transformers does not know.
    """
    frequencies, scale = _frequencies(config, head_dim, layer_type)
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
    return torch.stack((angles.cos() * scale, angles.sin() * scale), dim=1).contiguous()


def _frequencies(config: Any, head_dim: int, layer_type: str | None) -> tuple[torch.Tensor, float]:
    parameters = rope_parameters(config, layer_type)
    if parameters["rope_type"] == "default":
        dim = rotary_dim(config, head_dim)
        exponents = torch.arange(0, dim, 2, dtype=torch.int64).float() / dim
        return 1.0 / parameters["rope_theta"] ** exponents, 1.0
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    by_type = layer_type in (getattr(config, "rope_parameters", None) or {})
    frequencies, scale = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](
        config, torch.device("cpu"), layer_type=layer_type if by_type else None
    )
    return frequencies.float(), float(scale)


def check_rope(name: str, config: Any, context_tokens: int) -> None:
    """Refuse rotary frequencies that follow the longest sequence of a forward.

    They would change its neighbours. Up to the original context they are constant, and served.
    Raises ModelRefused (UnsupportedModel).
    """
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    by_layer = [part for part in rope.values() if isinstance(part, dict)] or [rope]
    for part in by_layer:
        kind = part.get("rope_type") or part.get("type")
        original = part.get("original_max_position_embeddings") or getattr(
            config, "original_max_position_embeddings", None
        )
        limit = int(original or config.max_position_embeddings)
        if kind in ("dynamic", "longrope") and context_tokens > limit:
            raise ModelRefused(
                "UnsupportedModel",
                f"{name} changes its rotary frequencies ({kind}) beyond {limit} tokens, which "
                f"would change its neighbours; set context_tokens to {limit} or less",
            )
