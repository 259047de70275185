"""How a model is divided over ranks, and what one of them has of it.

M. Shoeybi et al., "Megatron-LM: Training Multi-Billion Parameter Language Models Using Model
Parallelism" (2019): the projections into an attention or a feed-forward block are divided by their
outputs, those out of it by their inputs, so that a block needs one sum over the ranks. Which layer
is which, transformers says with each family (`base_model_tp_plan`). Embeddings and the last layer
are divided by tokens of the vocabulary.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.weights import Weights
from tidegate_runtime.ops.low_rank import LowRank
from tidegate_runtime.ops.packed import PackedLinear
from tidegate_runtime.ops.quantized import GROUP, PANEL
from tidegate_runtime.parallel.cut import some_columns, some_inputs, some_outputs

EMBEDDING = "model.embed_tokens"
HEAD = "lm_head"
_OUTPUTS, _INPUTS = "colwise", "rowwise"


@dataclass(frozen=True)
class Division:
    """What one rank has: a smaller model of the same kind.

    The products of the layers `summed` are parts of a sum over all ranks. Every rank but the last
    has `share` tokens of the vocabulary.
    """

    config: Any
    weights: Weights
    cut: Cut
    summed: tuple[str, ...]
    share: int


def divide(config: Any, weights: Weights, rank: int, ranks: int) -> Division:
    """The part of `rank`. Raises ModelRefused (CannotDivide) when the model has no such parts."""
    styles = _styles(config, weights)
    own = _own_config(config, ranks, packed=bool(weights.linears))
    vocabulary = int(config.get_text_config().vocab_size)
    share = -(-vocabulary // (ranks * PANEL)) * PANEL
    if share * (ranks - 1) >= vocabulary:
        raise _indivisible(config, ranks, f"its vocabulary has only {vocabulary} tokens")
    tokens = range(rank * share, min(vocabulary, (rank + 1) * share))
    own.get_text_config().vocab_size = len(tokens)
    # It may lie in another rank's part, and means nothing to a decoder.
    own.get_text_config().pad_token_id = None
    cut = Cut(styles, tokens, vocabulary, rank, ranks)
    parts = Weights(
        {name: cut.packed(name, linear) for name, linear in weights.linears.items()},
        {name: cut.dense(name, tensor) for name, tensor in weights.tensors.items()},
        weights.tied,
    )
    summed = tuple(name for name, style in styles.items() if style == _INPUTS)
    return Division(own, parts, cut, summed, share)


@dataclass(frozen=True)
class Cut:
    """Takes one rank's part of every weight.

    `tokens` are those of the vocabulary that this rank embeds and gives logits for, of `vocabulary`
    in all.
    """

    styles: Mapping[str, str]
    tokens: range
    vocabulary: int
    rank: int
    ranks: int

    def packed(self, name: str, whole: PackedLinear) -> PackedLinear:
        """Of a packed linear."""
        if name == HEAD:
            return some_outputs(whole, self.tokens)
        if self.styles[name] == _INPUTS:
            return some_inputs(whole, self._part(whole.inputs))
        return some_outputs(whole, self._part(whole.out))

    def dense(self, name: str, whole: torch.Tensor) -> torch.Tensor:
        """Of a parameter."""
        layer, _, kind = name.rpartition(".")
        if layer in (HEAD, EMBEDDING):
            return whole[self.tokens.start : self.tokens.stop]
        style = self.styles.get(layer)
        if style == _OUTPUTS:
            part = self._part(len(whole))
            return whole[part.start : part.stop]
        if style == _INPUTS and kind == "weight":
            return some_columns(whole, self._part(whole.shape[1]))
        if style == _INPUTS:
            return whole if self.rank == 0 else torch.zeros_like(whole)
        return whole

    def update(self, name: str, whole: LowRank) -> LowRank:
        """Of an adapter's update of a linear, in memory of its own.

        What `down` makes of some inputs is a part of a sum, and so is what `up` makes of that: it
        is added before the linear's own sum over the ranks.
        """
        if self.styles.get(name) == _INPUTS:
            inputs = self._part(whole.down.shape[1])
            return LowRank(some_columns(whole.down, inputs), whole.up.clone())
        outputs = self.tokens if name == HEAD else self._part(len(whole.up))
        return LowRank(whole.down.clone(), whole.up[outputs.start : outputs.stop].clone())

    def whole_shape(self, name: str, outputs: int, inputs: int) -> tuple[int, int]:
        """The (outputs, inputs) of a linear of which this rank has so many."""
        if name == HEAD:
            return self.vocabulary, inputs
        if self.styles[name] == _INPUTS:
            return outputs, inputs * self.ranks
        return outputs * self.ranks, inputs

    def _part(self, size: int) -> range:
        each = size // self.ranks
        return range(self.rank * each, (self.rank + 1) * each)


def _styles(config: Any, weights: Weights) -> dict[str, str]:
    """Linear layer → how it is divided. Raises ModelRefused."""
    plan = getattr(config.get_text_config(), "base_model_tp_plan", None)
    if not plan:
        raise _unsupported(config, "transformers does not say how its layers are divided")
    divided = {place: style for place, style in plan.items() if not style.startswith("replicated")}
    for place, style in divided.items():
        if style not in (_OUTPUTS, _INPUTS):
            raise _unsupported(config, f"its layers {place} are divided as {style}")
    patterns = {
        re.compile(rf"model\.{re.escape(place)}".replace(r"\*", r"\d+")): style
        for place, style in divided.items()
    }
    dense = {name.removesuffix(".weight"): tensor for name, tensor in weights.tensors.items()}
    linears = [*weights.linears, *(name for name, tensor in dense.items() if tensor.dim() > 1)]
    found = {}
    for name in linears:
        style = next((style for place, style in patterns.items() if place.fullmatch(name)), None)
        if style is not None:
            found[name] = style
        elif name not in (HEAD, EMBEDDING):
            raise _unsupported(config, f"it says nothing of its layer {name}")
    return found


def _own_config(config: Any, ranks: int, *, packed: bool) -> Any:
    """The configuration of one rank's model, but for its vocabulary. Raises ModelRefused."""
    own = copy.deepcopy(config)
    text = own.get_text_config()
    heads, kv_heads = int(text.num_attention_heads), _kv_heads(text)
    head_dim = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    inner = int(text.intermediate_size)
    # Packed weights are cut between panels of 16 outputs and groups of 32 inputs.
    panel, group = (PANEL, GROUP) if packed else (1, 1)
    for name, size, unit in (
        ("num_key_value_heads", kv_heads, 1),
        ("num_attention_heads", heads, 1),
        ("key and value width", kv_heads * head_dim, panel),
        ("attention width", heads * head_dim, group),
        ("intermediate_size", inner, group),
    ):
        if size % (ranks * unit):
            among = "" if unit == 1 else f" in whole {unit}s"
            raise _indivisible(config, ranks, f"its {name} {size} is not divisible by it{among}")
    text.num_attention_heads = heads // ranks
    text.num_key_value_heads = kv_heads // ranks
    text.intermediate_size = inner // ranks
    text.head_dim = head_dim
    return own


def _kv_heads(text: Any) -> int:
    return int(getattr(text, "num_key_value_heads", None) or text.num_attention_heads)


def _unsupported(config: Any, why: str) -> ModelRefused:
    return ModelRefused(
        "CannotDivide",
        f"a model of type {config.model_type!r} cannot be divided over several devices: {why}; set "
        "tensor_parallel to 1, or use a dense model (Llama, Qwen2, Qwen3, Mistral, …)",
    )


def _indivisible(config: Any, ranks: int, why: str) -> ModelRefused:
    return ModelRefused(
        "CannotDivide",
        f"tensor_parallel {ranks}: a model of type {config.model_type!r} cannot be divided so: "
        f"{why}; use a divisor of it, or 1",
    )
