"""What the probe refuses, judged from what it recorded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.ops.rope import check_rope


def config(rope: dict[str, Any] | None) -> Any:
    return SimpleNamespace(rope_parameters=rope, max_position_embeddings=8192)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_frequencies_that_follow_the_longest_sequence_are_refused_beyond_the_original_context(
    kind: str,
) -> None:
    rope = {"rope_type": kind, "original_max_position_embeddings": 4096}
    with pytest.raises(ModelRefused, match="set context_tokens to 4096"):
        check_rope("m", config(rope), 8192)
    check_rope("m", config(rope), 4096)


def test_they_are_found_per_layer_type_too() -> None:
    rope = {"full_attention": {"rope_type": "longrope", "original_max_position_embeddings": 16}}
    with pytest.raises(ModelRefused, match="16"):
        check_rope("m", config(rope), 32)


@pytest.mark.parametrize("rope", [None, {"rope_type": "default"}, {"rope_type": "llama3"}])
def test_constant_frequencies_are_served_at_any_length(rope: dict[str, Any] | None) -> None:
    check_rope("m", config(rope), 100_000)
