"""What a precision costs: perplexity, and agreement with the weights it was made from.

The protocol: the text is tokenised once, without special tokens, and cut into windows of 512; each
window is run alone from position 0; perplexity is exp of the mean negative log-likelihood of the
tokens 2 to 512 of all windows. Agreement is the share of positions whose most likely token is the
same, and the divergence is KL(reference || artifact) in nats, both over the same positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tidegate_runtime.artifact.checkpoint import Checkpoint
from tidegate_runtime.artifact.guard import guarded
from tidegate_runtime.artifact.memory import available_bytes
from tidegate_runtime.engine.block_manager import blocks_for
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import Decoder, StepBatch

WINDOW_TOKENS = 512
RATIO_BOUNDS = {"int4": 1.10, "int8": 1.01, "bf16": 1.005, "fp32": 1.005}
"""Perplexity of an artifact by that of its source, at most."""
_ROWS = 128
_SPARE = 2.2
"""Loading holds the weights twice for a moment."""

Logits = Callable[[Sequence[int]], torch.Tensor]
"""For a window of n tokens, float32 `[n, vocabulary]`: row i tells of token i + 1."""


@dataclass(frozen=True)
class Figures:
    """What was found over `tokens` predicted tokens; the last three need a reference."""

    tokens: int
    perplexity: float
    reference_perplexity: float | None = None
    agreement: float | None = None
    mean_kl: float | None = None

    @property
    def ratio(self) -> float | None:
        """Perplexity by that of the reference."""
        if self.reference_perplexity is None:
            return None
        return self.perplexity / self.reference_perplexity


def windows(tokens: Sequence[int], size: int, count: int | None = None) -> list[list[int]]:
    """Whole windows from the start, at most `count`; one shorter when the text is.

    Raises ModelRefused (TextTooShort) when there is nothing to predict.
    """
    starts = range(0, max(1, len(tokens) - size + 1), size)[:count]
    found = [list(tokens[start : start + size]) for start in starts]
    if len(found[0]) < 2:
        raise ModelRefused(
            "TextTooShort", f"the text has {len(tokens)} tokens, and 2 are needed; use a longer one"
        )
    return found


@torch.inference_mode()
def compare(texts: Sequence[Sequence[int]], logits: Logits, reference: Logits | None) -> Figures:
    """Run every window through both."""
    tokens, lost, lost_there, agreed, divergence = 0, 0.0, 0.0, 0, 0.0
    for text in texts:
        here = logits(text)
        there = None if reference is None else reference(text)
        targets = torch.tensor(text[1:])
        for start in range(0, len(targets), _ROWS):
            rows = slice(start, min(start + _ROWS, len(targets)))
            chosen = targets[rows].unsqueeze(1)
            ours = here[rows].float().log_softmax(-1)
            lost -= float(ours.gather(1, chosen).sum())
            if there is not None:
                theirs = there[rows].float().log_softmax(-1)
                lost_there -= float(theirs.gather(1, chosen).sum())
                agreed += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
                divergence += float((theirs.exp() * (theirs - ours)).sum())
        tokens += len(targets)
    perplexity = _exp(lost / tokens)
    if reference is None:
        return Figures(tokens, perplexity)
    return Figures(
        tokens, perplexity, _exp(lost_there / tokens), agreed / tokens, divergence / tokens
    )


def decoder_logits(decoder: Decoder, window: int) -> Logits:
    """The logits of a decoder, which gets a pool for one window."""
    decoder.allocate(blocks_for(window))
    return lambda tokens: decoder.forward(StepBatch.of_prompt(list(tokens))).logits


def reference_dtype(checkpoint: Checkpoint) -> torch.dtype | None:
    """What the source's weights can be held in besides: float32, else bf16, else nothing."""
    free = available_bytes()
    for dtype in (torch.float32, torch.bfloat16):
        if checkpoint.skeleton.parameters * dtype.itemsize * _SPARE < free:
            return dtype
    return None


def reference_logits(
    checkpoint: Checkpoint, state: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> Logits:
    """The logits of the source's own weights, by transformers."""

    def load() -> Any:
        return type(checkpoint.empty).from_pretrained(
            None, config=checkpoint.config, state_dict=dict(state), dtype=dtype
        )

    model = guarded(checkpoint.path, load).eval()
    return lambda tokens: model(torch.tensor([list(tokens)]), use_cache=False).logits[0]


def _exp(mean: float) -> float:
    try:
        return math.exp(mean)
    except OverflowError:
        return math.inf
