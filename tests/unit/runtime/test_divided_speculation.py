"""A model divided over two processes guesses by its layers and by heads, as one process does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.unit.runtime.adapters.test_exact import adapter_of
from tests.unit.runtime.adapters.tiny_adapters import ALL, attach
from tests.unit.runtime.test_parallel import BLOCKS, PROMPT, divided
from tests.unit.runtime.test_self_speculation import METHODS, Tiny, run, spec_of
from tests.unit.runtime.tiny_decoders import (
    make_decoder,
    ragged,
    write_artifact,
)

from tidegate_runtime.models.base import LayeredDecoder
from tidegate_runtime.server.ranks import Ranks
from tidegate_runtime.speculation.open import open_self_speculation


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    """In float32, whose parts differ from the whole by the order of a sum alone."""
    return Tiny.make(32)


@pytest.fixture
def both(tiny: Tiny, ranks: Ranks, tmp_path: Path) -> tuple[LayeredDecoder, LayeredDecoder]:
    over_two = divided(ranks, write_artifact(tmp_path / "model", tiny.model, tiny.weights), 300)
    alone = make_decoder("transformers", tiny.model.config, tiny.weights)
    assert isinstance(over_two, LayeredDecoder)
    assert isinstance(alone, LayeredDecoder)
    return over_two, alone


@pytest.mark.parametrize("with_adapter", [False, True])
def test_what_it_shows_of_its_layers_is_that_of_one_process(
    both: tuple[LayeredDecoder, LayeredDecoder], tmp_path: Path, with_adapter: bool
) -> None:
    adapted = attach(Tiny.make(32).model, target_modules=[*ALL, "lm_head"])
    tokens = torch.tensor([0, 159, 160, 299])  # the last of one rank and the first of the other
    shown = []
    for decoder in both:
        batch = ragged((PROMPT, 0, BLOCKS))
        if with_adapter:
            batch = replace(batch, adapters=(adapter_of(decoder, adapted, tmp_path / "a"),))
        decoder.watch()
        last = decoder.forward(batch).hidden
        assert last is not None
        early = decoder.early(batch, 1).logits
        shown.append(
            (
                last.clone(),
                decoder.hidden(batch, 1),
                early.clone(),
                decoder.embed(tokens),
            )
        )
    for found, wanted in zip(*shown, strict=True):
        assert found.shape == wanted.shape
        assert torch.allclose(found, wanted, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
async def test_tokens_are_the_same_with_guesses_and_without(
    method: str, both: tuple[LayeredDecoder, LayeredDecoder], tiny: Tiny, tmp_path: Path
) -> None:
    over_two, alone = both
    expected, _ = await run(alone)
    asked = spec_of(method, tiny, tmp_path)
    found, steps = await run(
        over_two,
        eager=True,
        open_proposer=lambda blocks: open_self_speculation(
            asked, over_two, blocks, max_sequences=4
        ),
    )
    assert found == expected
    assert steps.total.drafted_tokens > 0
    if method.startswith("early"):
        assert steps.total.accepted_tokens > 0
