"""What a rank's model needs beside its parts: sums over the ranks, and the whole vocabulary."""

from __future__ import annotations

from typing import Any

import torch

from tidegate_runtime.parallel.division import Division
from tidegate_runtime.parallel.group import Group


class SummedLinear(torch.nn.Module):
    """A linear of which this rank has some of the inputs."""

    def __init__(self, part: torch.nn.Module, group: Group) -> None:
        super().__init__()
        self._part = part
        self._group = group

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`[…, in / ranks]` → `[…, out]`."""
        return self._group.sum(self._part(inputs))


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


class DividedHead(torch.nn.Module):
    """The last layer, of which this rank has the logits of some tokens."""

    def __init__(self, part: torch.nn.Module, division: Division, group: Group) -> None:
        super().__init__()
        self._part = part
        self._share = division.share
        self._vocabulary = division.vocabulary
        self._group = group

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[1, rows, hidden]` → `[1, rows, vocabulary]` on rank 0; elsewhere what it has of it."""
        own = self._part(hidden)
        missing = self._share - own.shape[-1]
        even = torch.nn.functional.pad(own, (0, missing)) if missing else own
        parts = self._group.gather(even)
        return torch.cat(parts, dim=-1)[..., : self._vocabulary] if parts else own


def connect(model: Any, division: Division, group: Group) -> None:
    """Make one rank's model compute with the others."""
    for name in division.summed:
        model.set_submodule(name, SummedLinear(model.get_submodule(name), group))
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    model.set_input_embeddings(DividedEmbedding(embedding, division.tokens, group))
    model.set_output_embeddings(DividedHead(head, division, group))
