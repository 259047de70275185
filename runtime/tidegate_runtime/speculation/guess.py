"""What heads make of a hidden state h, after a norm n(h): their guesses, nearest first.

`medusa` (Cai et al. 2024, section 2.1): head i guesses from z_i = n(h) + silu(W_i n(h) + b_i), all
heads at once, whatever the tokens between were. `early_exit` is one such head after an early layer.

`hydra` (after Ankner et al. 2024): each head sees what the one before it guessed. From z_0 = n(h),
z_i = z_(i-1) + M silu(J [n(z_(i-1)); n(e_i)] + b), where e_i is the embedding of the token before
the one to guess, and both n are without a weight. The matrices are the same for every i.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch.nn.functional import rms_norm, silu

from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import LayeredDecoder
from tidegate_runtime.speculation.heads import HeadsManifest, packed_linears, read_heads


class Heads(Protocol):
    """Guesses up to `levels` tokens from hidden states of layer `exit_layer`."""

    levels: int
    exit_layer: int
    at_once: bool

    def guess(self, hidden: torch.Tensor, tokens: list[int], levels: int) -> list[list[int]]:
        """From `[rows, hidden]` and the token that each row chose: `levels` guesses a row.

        Heads that guess `at_once` may give more.
        """


class MedusaHeads:
    """See `Heads`; the tokens are not looked at."""

    at_once = True

    def __init__(
        self, manifest: HeadsManifest, tensors: Mapping[str, torch.Tensor], decoder: LayeredDecoder
    ) -> None:
        linears = packed_linears(manifest, tensors)
        self.levels = manifest.levels
        self.exit_layer = manifest.exit_layer or decoder.layers
        self._block, self._head = (decoder.linear(linears[name]) for name in ("block", "head"))
        self._norm, self._epsilon = tensors["norm"], manifest.epsilon
        self._tokens = tensors["tokens"].long()

    @torch.inference_mode()
    def guess(self, hidden: torch.Tensor, tokens: list[int], levels: int) -> list[list[int]]:
        """All guesses, in two products."""
        del tokens, levels
        weight = self._norm.to(hidden.device)
        normal = rms_norm(hidden, weight.shape, weight, self._epsilon)
        steps = silu(self._block(normal)).view(len(hidden), self.levels, -1)
        best = self._head((steps + normal.unsqueeze(1)).flatten(0, 1)).argmax(-1)
        found: list[list[int]] = self._tokens[best.cpu()].view(len(hidden), -1).tolist()
        return found


class HydraHeads:
    """See `Heads`; three products a level."""

    at_once = False

    def __init__(
        self, manifest: HeadsManifest, tensors: Mapping[str, torch.Tensor], decoder: LayeredDecoder
    ) -> None:
        linears = packed_linears(manifest, tensors)
        self.levels = manifest.levels
        self.exit_layer = decoder.layers
        self._decoder = decoder
        self._join, self._mix, self._head = (
            decoder.linear(linears[name]) for name in ("join", "mix", "head")
        )
        self._norm, self._epsilon = tensors["norm"], manifest.epsilon
        self._tokens = tensors["tokens"].long()

    @torch.inference_mode()
    def guess(self, hidden: torch.Tensor, tokens: list[int], levels: int) -> list[list[int]]:
        """One guess after another."""
        weight, size = self._norm.to(hidden.device), (hidden.shape[1],)
        state = rms_norm(hidden, size, weight, self._epsilon)
        last = torch.tensor(tokens)
        found = []
        for _ in range(levels):
            said = self._decoder.embed(last)
            both = (rms_norm(part, size, eps=self._epsilon) for part in (state, said))
            state = state + self._mix(silu(self._join(torch.cat((*both,), dim=-1))))
            last = self._tokens[self._head(state).argmax(-1).cpu()]
            found.append(last)
        guesses: list[list[int]] = torch.stack(found, dim=1).tolist()
        return guesses


def place_heads(
    manifest: HeadsManifest, tensors: Mapping[str, torch.Tensor], decoder: LayeredDecoder
) -> Heads:
    """Heads beside a decoder that they fit, on its device."""
    kind = HydraHeads if manifest.method == "hydra" else MedusaHeads
    return kind(manifest, tensors, decoder)


def open_heads(
    root: Path, decoder: LayeredDecoder, *, method: str, exit_layer: int | None
) -> Heads:
    """Heads for a decoder, as they were asked for. `exit_layer` None takes that of the heads.

    Raises ModelRefused: DamagedHeads, WrongHeads.
    """
    manifest, tensors = read_heads(root)
    asked = manifest.exit_layer if exit_layer is None else exit_layer
    for what, own, wanted in (
        ("method", manifest.method, method),
        ("exit layer", manifest.exit_layer, asked),
        ("hidden size", manifest.hidden, decoder.hidden_size),
        ("vocabulary", manifest.vocabulary, decoder.vocabulary_size),
    ):
        if own != wanted:
            raise ModelRefused(
                "WrongHeads",
                f"the heads {str(root)!r} were made for {manifest.model!r} with the {what} {own}, "
                f"and here it is {wanted}; make heads for this model with tidegate distill",
            )
    return place_heads(manifest, tensors, decoder)
