"""What a rank's model needs beside its parts: sums over the ranks, and the whole vocabulary."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from tidegate_runtime.parallel.division import Division
from tidegate_runtime.parallel.group import Group


class DividedEmbedding(torch.nn.Module):
    """Embeddings of which this rank has those of some tokens."""

    def __init__(self, part: torch.nn.Module, tokens: range, group: Group) -> None:
        super().__init__()
        self._part = part
        self._tokens = tokens
        self._group = group

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[1, tokens]` → `[1, tokens, hidden]`."""
        places = tokens - self._tokens.start
        elsewhere = (places < 0) | (places >= len(self._tokens))
        found = self._part(places.masked_fill(elsewhere, 0))
        return self._group.sum(found.masked_fill(elsewhere.unsqueeze(-1), 0.0))


def connect(model: Any, division: Division, group: Group) -> None:
    """Make one rank's model compute with the others.

    A linear gives its sum, and the last layer its gathered logits, by the first of its hooks: what
    an adapter adds to the rank's own part comes before (`models.adapted`).
    """
    for name in division.summed:
        model.get_submodule(name).register_forward_hook(partial(_sum, group))
    tokens = division.cut.tokens
    model.set_input_embeddings(DividedEmbedding(model.get_input_embeddings(), tokens, group))
    model.get_output_embeddings().register_forward_hook(partial(_gather, division, group))


def _sum(group: Group, module: torch.nn.Module, given: object, part: torch.Tensor) -> torch.Tensor:
    """What some of the inputs add to all outputs, `[…, out]` → that of all inputs."""
    del module, given
    return group.sum(part)


def _gather(
    division: Division, group: Group, module: torch.nn.Module, given: object, own: torch.Tensor
) -> torch.Tensor:
    """The logits of some tokens, `[1, rows, tokens]` → on rank 0 `[1, rows, vocabulary]`."""
    del module, given
    missing = division.share - own.shape[-1]
    even = torch.nn.functional.pad(own, (0, missing)) if missing else own
    parts = group.gather(even)
    return torch.cat(parts, dim=-1)[..., : division.cut.vocabulary] if parts else own
