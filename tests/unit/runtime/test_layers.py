"""What a decoder shows of itself: hidden states, and its first layers alone."""

from typing import Any

import pytest
import torch
from tests.unit.runtime.tiny_decoders import (
    make_decoder,
    packed_weights,
    ragged,
    rounded_model,
    tiny_model,
)

from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.models.base import LayeredDecoder
from tidegate_runtime.models.layers import watch_norm

KINDS = ("native", "transformers", "torch")
TOKENS = [7, 3, 250, 19, 4, 4, 88, 120, 5]
BATCH = ragged((TOKENS, 0, [3]), (TOKENS[::-1], 0, [5]))


@pytest.fixture(scope="module", params=KINDS)
def pair(request: Any) -> tuple[LayeredDecoder, Any]:
    """A decoder of four layers, and the same model in transformers."""
    model = tiny_model("Llama", num_hidden_layers=4)
    weights = packed_weights(model, 8)
    decoder = make_decoder(request.param, model.config, weights)
    assert isinstance(decoder, LayeredDecoder)
    return decoder, rounded_model(model, weights)


@torch.inference_mode()
def states(model: Any, layers: int) -> torch.Tensor:
    """What the layer leaves for the rows of `BATCH`, by transformers."""
    seen: list[torch.Tensor] = []
    hook = model.model.layers[layers - 1].register_forward_hook(
        lambda *given: seen.append(given[2])
    )
    for tokens in (TOKENS, TOKENS[::-1]):
        model(torch.tensor([tokens]))
    hook.remove()
    return torch.cat([state[0] if state.dim() == 3 else state for state in seen])


@pytest.mark.parametrize("layers", [1, 3, 4])
def test_hidden_states_are_those_that_the_layer_leaves(
    pair: tuple[LayeredDecoder, Any], layers: int
) -> None:
    decoder, model = pair
    torch.testing.assert_close(
        decoder.hidden(BATCH, layers), states(model, layers), atol=0.05, rtol=0.05
    )


def test_an_early_exit_is_the_model_without_its_other_layers(
    pair: tuple[LayeredDecoder, Any],
) -> None:
    decoder, model = pair
    early = decoder.early(BATCH, 2)
    hidden = states(model, 2)
    expected = model.lm_head(model.model.norm(hidden))
    torch.testing.assert_close(early.logits, expected, atol=0.2, rtol=0.05)
    assert early.best == early.logits.argmax(-1).tolist()


def test_a_whole_run_after_an_early_exit_gives_what_it_gives_alone(
    pair: tuple[LayeredDecoder, Any],
) -> None:
    decoder, _ = pair
    alone = decoder.forward(BATCH).logits.clone()
    decoder.hidden(BATCH, 3)
    assert torch.equal(decoder.forward(BATCH).logits, alone)


def test_a_watched_decoder_gives_the_same_logits_and_its_last_states(
    pair: tuple[LayeredDecoder, Any],
) -> None:
    decoder, _ = pair
    before = decoder.forward(BATCH)
    alone = before.logits.clone()
    decoder.watch()
    decoder.watch()
    watched = decoder.forward(BATCH)
    assert torch.equal(watched.logits, alone)
    assert watched.hidden is not None
    torch.testing.assert_close(watched.hidden, decoder.hidden(BATCH, 4))


def test_nothing_is_kept_unless_somebody_watches() -> None:
    model = tiny_model("Llama")
    for kind in KINDS:
        assert (
            make_decoder(kind, model.config, packed_weights(model, 8)).forward(BATCH).hidden is None
        )


def test_a_model_without_a_list_of_layers_is_refused() -> None:
    model = tiny_model("Llama")
    del model.model.layers
    with pytest.raises(ModelRefused, match="LlamaForCausalLM is not made of a list of layers"):
        watch_norm(model)
