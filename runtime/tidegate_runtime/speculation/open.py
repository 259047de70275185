"""From a declaration to what guesses next tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tidegate.spec import SpeculationSpec
from tidegate_runtime.engine.block_manager import BlockManager
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import Decoder, LayeredDecoder, StepBatch
from tidegate_runtime.speculation.base import Proposer
from tidegate_runtime.speculation.early_exit import EarlyExitProposer
from tidegate_runtime.speculation.guess import open_heads
from tidegate_runtime.speculation.hidden_heads import HeadsProposer


def open_self_speculation(
    asked: SpeculationSpec, decoder: Decoder, blocks: BlockManager, *, max_sequences: int
) -> Proposer:
    """A proposer of method `early_exit`, `medusa` or `hydra` over the decoder itself and its pool.

    Raises ModelRefused: UnsupportedSpeculation, BadExitLayer, DamagedHeads, WrongHeads.
    """
    if not isinstance(decoder, LayeredDecoder):
        raise ModelRefused(
            "UnsupportedSpeculation",
            f"runtime.speculation.method {asked.method!r} looks into the model, which "
            f"{type(decoder).__name__} does not allow; use 'ngram' or 'draft'",
        )
    if asked.method != "early_exit":
        return _on_last_layer(asked, decoder)
    return EarlyExitProposer(
        _guess_early(asked, decoder),
        blocks,
        spare_blocks=max_sequences,
        max_tokens=asked.max_tokens,
    )


def check_exit_layer(exit_layer: int, decoder: LayeredDecoder) -> None:
    """Raises ModelRefused (BadExitLayer) for a layer that is not before the last."""
    if not 1 <= exit_layer < decoder.layers:
        raise ModelRefused(
            "BadExitLayer",
            f"exit_layer {exit_layer} is not within 1..{decoder.layers - 1}, for the model has "
            f"{decoder.layers} layers; choose one of the first",
        )


def _on_last_layer(asked: SpeculationSpec, decoder: LayeredDecoder) -> HeadsProposer:
    assert asked.heads is not None  # the declaration has checked it
    heads = open_heads(Path(asked.heads), decoder, method=asked.method, exit_layer=None)
    decoder.watch()
    return HeadsProposer(heads, asked.max_tokens)


def _guess_early(
    asked: SpeculationSpec, decoder: LayeredDecoder
) -> Callable[[StepBatch], list[int]]:
    if asked.exit_layer is not None:
        check_exit_layer(asked.exit_layer, decoder)
    if asked.heads is None:
        layer = asked.exit_layer
        assert layer is not None  # the declaration has checked it
        return lambda batch: decoder.early(batch, layer).best
    heads = open_heads(Path(asked.heads), decoder, method="early_exit", exit_layer=asked.exit_layer)
    check_exit_layer(heads.exit_layer, decoder)

    def guess(batch: StepBatch) -> list[int]:
        hidden = decoder.hidden(batch, heads.exit_layer)
        return [nearest for nearest, *_ in heads.guess(hidden, [], 1)]

    return guess
