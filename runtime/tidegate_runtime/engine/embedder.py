"""Text to vectors: a forward over padded inputs, pooled and normalised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from tidegate_runtime.artifact.check import read_config
from tidegate_runtime.errors import ModelRefused

BATCH_TOKENS = 2048


class EncoderInput(NamedTuple):
    """The token ids of a text, or of a pair of texts with the `segments` that its model wants: for
    each token which text it is of.
    """

    tokens: list[int]
    segments: list[int] | None = None


class Encoder(Protocol):
    """A model that reads inputs as a whole."""

    def encode(self, inputs: Sequence[EncoderInput]) -> torch.Tensor:
        """What it makes of each, `[inputs, dim]` in float32."""


def padded(inputs: Sequence[EncoderInput], device: torch.device) -> dict[str, torch.Tensor]:
    """What models of transformers take for some inputs together, each tensor `[inputs, tokens]`."""
    longest = max(len(each.tokens) for each in inputs)
    lengths = torch.tensor([len(each.tokens) for each in inputs]).unsqueeze(1)
    given = {
        "input_ids": _rows([each.tokens for each in inputs], longest),
        "attention_mask": (torch.arange(longest) < lengths).long(),
    }
    segments = [each.segments for each in inputs if each.segments is not None]
    if segments:  # a model wants them of every input, or of none
        given["token_type_ids"] = _rows(segments, longest)
    return {name: tensor.to(device) for name, tensor in given.items()}


Pooling = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Hidden states `[inputs, tokens, dim]` and a mask `[inputs, tokens]` → vectors `[inputs, dim]`."""


def mean_pooling(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over real tokens (Reimers and Gurevych 2019)."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1)


def first_pooling(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The first token, as BERT's [CLS]."""
    del mask
    return hidden[:, 0]


def last_pooling(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The last real token, as decoders trained for embedding do."""
    rows = torch.arange(hidden.shape[0], device=hidden.device)
    return hidden[rows, mask.sum(1) - 1]


_POOLINGS: dict[str, Pooling] = {
    "mean_tokens": mean_pooling,
    "cls_token": first_pooling,
    "lasttoken": last_pooling,
}
_SHORT = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}


def choose_pooling(root: Path, asked: str | None) -> Pooling:
    """The pooling `asked` for, "mean", "cls" or "last"; else what a sentence-transformers directory
    says, else the mean.

    Raises ModelRefused (UnsupportedModel) for a pooling or module that is not honoured.
    """
    modules = root / "modules.json"
    if modules.exists() and ".Dense" in modules.read_text():
        raise ModelRefused(
            "UnsupportedModel",
            f"{str(root)!r} has a Dense module after its pooling, which is not honoured; use a "
            "model without one",
        )
    if asked is not None:
        return _POOLINGS[_SHORT[asked]]
    path = root / "1_Pooling" / "config.json"
    if not path.exists():
        return mean_pooling
    config = read_config(path)
    mode = config.get("pooling_mode")
    chosen = [
        name.removeprefix("pooling_mode_")
        for name, value in config.items()
        if name.startswith("pooling_mode_") and value is True
    ]
    if isinstance(mode, str):
        chosen = [_SHORT.get(mode, mode)]
    if len(chosen) != 1 or chosen[0] not in _POOLINGS:
        raise ModelRefused(
            "UnsupportedModel",
            f"{str(path)!r} asks for pooling {', '.join(chosen) or 'none'}, which is not "
            f"honoured; use one of {', '.join(_POOLINGS)}",
        )
    return _POOLINGS[chosen[0]]


class Embedder:
    """An encoder with its pooling. Not thread-safe: one thread calls `encode`."""

    def __init__(self, model: Any, pooling: Pooling) -> None:
        self._model = model
        self._pooling = pooling

    @torch.inference_mode()
    def encode(self, inputs: Sequence[EncoderInput]) -> torch.Tensor:
        """Unit vectors `[inputs, dim]` in float32 for non-empty inputs."""
        given = padded(inputs, self._model.device)
        hidden = self._model(**given).last_hidden_state
        pooled = self._pooling(hidden.float(), given["attention_mask"])
        return torch.nn.functional.normalize(pooled, dim=-1)


class CrossEncoder:
    """An encoder that scores a pair of texts. Not thread-safe: one thread calls `encode`."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @torch.inference_mode()
    def encode(self, inputs: Sequence[EncoderInput]) -> torch.Tensor:
        """The relevance `[inputs, 1]` of each pair, between 0 and 1 (as sentence-transformers)."""
        logits: torch.Tensor = self._model(**padded(inputs, self._model.device)).logits
        return logits.float().sigmoid()


def _rows(lists: Sequence[list[int]], length: int) -> torch.Tensor:
    """`[lists, length]`, padded with 0."""
    return torch.tensor([[*each, *[0] * (length - len(each))] for each in lists])


def batches(lengths: Sequence[int], batch_tokens: int = BATCH_TOKENS) -> list[list[int]]:
    """Group inputs of like length, so little is padded: indices whose padded size fits a batch."""
    grouped: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda item: lengths[item]):
        # Sorted by length, so the newest input sets the padded width of its batch.
        if not grouped or (len(grouped[-1]) + 1) * lengths[index] > batch_tokens:
            grouped.append([])
        grouped[-1].append(index)
    return grouped
