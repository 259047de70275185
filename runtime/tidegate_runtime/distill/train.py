"""The training loop: AdamW over shuffled rows, stopped and resumed at any batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from tidegate_runtime.distill.examples import UNKNOWN, Examples
from tidegate_runtime.distill.learner import Learner

_BETAS = (0.9, 0.95)
_WARM_UP = 0.05
_LEAST = 0.02
_CLIP = 1.0
_FAR = 0.8
"""What the loss of a guess counts by that of the one before it (Cai et al. 2024)."""

Tell = Callable[[int, int, float], None]
"""After a batch: how many are done, of how many, and its loss."""


@dataclass(frozen=True)
class Training:
    """How to train. `rate` is the highest, after a short rise and before a fall like a cosine."""

    epochs: int = 3
    rows: int = 512
    rate: float = 1e-3
    checkpoint_batches: int = 50
    seed: int = 0


def train(
    learner: Learner, examples: Examples, order: Training, checkpoint: Path, tell: Tell
) -> None:
    """Train a learner, from its checkpoint on if there is one; the same either way.

    Raises ValueError when there are not enough examples for one batch.
    """
    total = order.epochs * (len(examples.hidden) // order.rows)
    if total == 0:
        raise ValueError(f"{len(examples.hidden)} examples make no batch of {order.rows}")
    optimizer = torch.optim.AdamW(learner.parameters(), lr=order.rate, betas=_BETAS)
    done = _resume(learner, optimizer, checkpoint)
    for batch in islice(_batches(examples, order), done, None):
        for group in optimizer.param_groups:
            group["lr"] = order.rate * _share_of_rate(done, total)
        loss = _loss(learner, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learner.parameters(), _CLIP)
        optimizer.step()
        done += 1
        tell(done, total, float(loss.detach()))
        if done % order.checkpoint_batches == 0 or done == total:
            _save(learner, optimizer, done, checkpoint)


def _batches(examples: Examples, order: Training) -> Iterator[Examples]:
    for epoch in range(order.epochs):
        yield from examples.batches(order.rows, order.seed + epoch)


def _loss(learner: Learner, batch: Examples) -> torch.Tensor:
    logits = learner(batch.hidden, batch.tokens)
    far = torch.tensor([_FAR**level for level in range(logits.shape[1])])
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), ignore_index=UNKNOWN, reduction="none"
    )
    weights = far.expand_as(batch.labels) * (batch.labels != UNKNOWN)
    return (losses * weights.flatten()).sum() / weights.sum().clamp(min=1.0)


def _share_of_rate(done: int, total: int) -> float:
    rise = min(1.0, (done + 1) / (_WARM_UP * total))
    fall = 0.5 * (1.0 + math.cos(math.pi * done / total))
    return rise * (_LEAST + (1.0 - _LEAST) * fall)


def _save(learner: Learner, optimizer: torch.optim.Optimizer, done: int, checkpoint: Path) -> None:
    partial = checkpoint.with_suffix(".partial")
    state = {"learner": learner.state_dict(), "optimizer": optimizer.state_dict(), "done": done}
    torch.save(state, partial)
    partial.replace(checkpoint)


def _resume(learner: Learner, optimizer: torch.optim.Optimizer, checkpoint: Path) -> int:
    """How many batches were done."""
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, weights_only=True)
    learner.load_state_dict(state["learner"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["done"])
