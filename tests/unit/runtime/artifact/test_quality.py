"""Perplexity and agreement, as the protocol says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from tidegate_runtime.artifact.build import choose_precision
from tidegate_runtime.artifact.prose import builtin_prose
from tidegate_runtime.artifact.quality import compare, windows
from tidegate_runtime.errors import ModelRefused


def uniform(tokens: Sequence[int]) -> torch.Tensor:
    return torch.zeros(len(tokens), 8)


def sure(tokens: Sequence[int]) -> torch.Tensor:
    """Says that the next token is this one plus one, with probability e/(e+7)."""
    logits = torch.zeros(len(tokens), 8)
    for row, token in enumerate(tokens):
        logits[row, (token + 1) % 8] = 1.0
    return logits


def test_windows_are_whole_and_from_the_start() -> None:
    assert windows(range(10), 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert windows(range(10), 4, 1) == [[0, 1, 2, 3]]
    assert windows(range(3), 4) == [[0, 1, 2]]


def test_a_text_with_nothing_to_predict_is_refused() -> None:
    with pytest.raises(ModelRefused, match="has 1 tokens"):
        windows([5], 4)


def test_perplexity_is_of_the_tokens_after_the_first() -> None:
    found = compare([[0, 1, 2, 3], [4, 5]], uniform, None)
    assert (found.tokens, found.reference_perplexity, found.ratio) == (4, None, None)
    assert found.perplexity == pytest.approx(8.0)
    right = compare([[0, 1, 2, 3]], sure, None)
    assert right.perplexity == pytest.approx((math.e + 7) / math.e)


def test_a_long_window_is_as_one_of_its_parts_together() -> None:
    text = [token % 8 for token in range(400)]
    assert compare([text], sure, None).perplexity == pytest.approx((math.e + 7) / math.e)
    assert compare([text], sure, None).tokens == 399


def test_a_model_agrees_with_itself() -> None:
    found = compare([[0, 1, 5, 3]], sure, sure)
    assert (found.ratio, found.agreement) == (1.0, 1.0)
    assert found.mean_kl == pytest.approx(0.0, abs=1e-6)


def test_disagreement_is_counted_and_measured() -> None:
    def half(tokens: Sequence[int]) -> torch.Tensor:
        logits = sure(tokens)
        logits[0] = logits[0].roll(1)
        return logits

    found = compare([[0, 1, 2]], half, sure)
    assert found.agreement == 0.5
    p, q = math.e / (math.e + 7), 1 / (math.e + 7)
    assert found.mean_kl == pytest.approx((p - q) / 2)
    assert found.ratio is not None
    assert found.ratio > 1.0


def test_no_number_is_no_quality() -> None:
    found = compare([[0, 1, 2]], lambda tokens: torch.full((len(tokens), 8), math.nan), uniform)
    assert found.ratio is not None
    assert not found.ratio <= 2.0


@pytest.mark.parametrize(
    ("asked", "stored", "inputs", "chosen"),
    [
        ("auto", 4, {64}, "int4"),
        ("auto", 8, {64}, "int8"),
        ("auto", 16, {64, 96}, "int8"),
        ("auto", 4, {64, 40}, "fp32"),
        ("bf16", 4, {64}, "bf16"),
    ],
)
def test_auto_is_what_suits_the_source(
    asked: str, stored: int, inputs: set[int], chosen: str
) -> None:
    assert choose_precision(asked, stored, inputs) == chosen


def test_the_built_in_prose_is_long_enough_and_prose() -> None:
    text = builtin_prose()
    assert len(text) > 15_000
    assert sum(letter.isalpha() or letter.isspace() for letter in text) > 0.9 * len(text)
