"""What a model says: continuations of a text, with its best token and hidden state at each place.

Heads learn from the model's own words, not from the text's: those are what they will have to guess
(the self-distillation of Cai et al. 2024, section 2.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from tidegate_runtime.artifact.save import save_tensors
from tidegate_runtime.engine.block_manager import blocks_for
from tidegate_runtime.models.base import Integers, LayeredDecoder, StepBatch, StepLogits

STREAMS = 16
"""Continuations made at once: a tile of rows."""
PROMPT_TOKENS = 48
SAID_TOKENS = 208
TRACE_BLOCKS = STREAMS * blocks_for(PROMPT_TOKENS + SAID_TOKENS)
_TEMPERATURES = (0.0, 0.8)
"""In turn, since both greedy and drawn texts will be guessed."""


@dataclass(frozen=True)
class Traces:
    """Continuations, `n` of them, each of `m` places.

    `tokens` int32 `[n, m]` went in, after all before them; `best` int32 `[n, m]` was the most
    likely next one; `hidden` bf16 `[n, m, hidden]` is what the watched layer left.
    """

    tokens: torch.Tensor
    best: torch.Tensor
    hidden: torch.Tensor

    @property
    def greedy(self) -> Traces:
        """Those in which every token said was the best."""
        return Traces(*(part[:: len(_TEMPERATURES)] for part in vars(self).values()))

    @classmethod
    def joined(cls, parts: Sequence[Traces]) -> Traces:
        """All continuations of several."""
        return cls(
            torch.cat([part.tokens for part in parts]),
            torch.cat([part.best for part in parts]),
            torch.cat([part.hidden for part in parts]),
        )

    def save(self, path: Path) -> None:
        """Write a file, whole or not at all."""
        partial = path.with_suffix(".partial")
        save_tensors(vars(self), partial)
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Traces:
        """Read what `save` wrote."""
        return cls(**load_file(path))


class Tracer:
    """Lets a decoder, with a pool of `TRACE_BLOCKS` blocks, continue prompts.

    `exit_layer` is the layer whose hidden states are kept; None is the last.
    """

    def __init__(self, decoder: LayeredDecoder, exit_layer: int | None) -> None:
        self._decoder = decoder
        self._exit_layer = exit_layer
        if exit_layer is None:
            decoder.watch()

    @torch.inference_mode()
    def trace(self, prompts: Integers, seed: int) -> Traces:
        """Continue prompts `[n, PROMPT_TOKENS]`, at most `STREAMS`; a seed gives the same again."""
        count = len(prompts)
        chance = torch.Generator().manual_seed(seed)
        self._decoder.forward(_batch(prompts[:, :-1], 0))
        said, best, hidden = [prompts[:, -1]], [], []
        for place in range(PROMPT_TOKENS - 1, PROMPT_TOKENS - 1 + SAID_TOKENS):
            batch = _batch(said[-1].reshape(count, 1), place)
            # The early layers first: the whole run then writes the same keys and values again.
            early = self._early(batch)
            logits = self._decoder.forward(batch)
            hidden.append((early if early is not None else _kept(logits)).bfloat16())
            best.append(np.array(logits.best, dtype=np.int32))
            said.append(_next(logits, chance))
        return Traces(
            torch.from_numpy(np.stack(said[:-1], axis=1)),
            torch.from_numpy(np.stack(best, axis=1)),
            torch.stack(hidden, dim=1).cpu(),
        )

    def _early(self, batch: StepBatch) -> torch.Tensor | None:
        if self._exit_layer is None:
            return None
        return self._decoder.hidden(batch, self._exit_layer)


def _kept(logits: StepLogits) -> torch.Tensor:
    assert logits.hidden is not None  # the decoder is watched
    return logits.hidden


def _next(logits: StepLogits, chance: torch.Generator) -> Integers:
    """The best token of every second row, and one drawn for the others."""
    tokens = np.array(logits.best, dtype=np.int32)
    for place, temperature in enumerate(_TEMPERATURES):
        if temperature:
            shares = (logits.logits[place :: len(_TEMPERATURES)].cpu() / temperature).softmax(-1)
            drawn = torch.multinomial(shares, 1, generator=chance)
            tokens[place :: len(_TEMPERATURES)] = drawn.squeeze(1).numpy()
    return tokens


def _batch(tokens: Integers, start: int) -> StepBatch:
    """Tokens `[n, m]` from one position on, each row of them in blocks of its own; the logits of
    the last of each.
    """
    count, length = tokens.shape
    width = blocks_for(PROMPT_TOKENS + SAID_TOKENS)
    ends = np.arange(1, count + 1, dtype=np.int32) * length
    return StepBatch(
        tokens=tokens.reshape(-1),
        positions=np.tile(np.arange(start, start + length, dtype=np.int32), count),
        starts=np.concatenate(([0], ends)).astype(np.int32),
        tables=np.arange(count * width, dtype=np.int32).reshape(count, width),
        wanted=ends - 1,
    )
