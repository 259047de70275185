import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tidegate_runtime.text.detokenizer import (
    ByteDetokenizer,
    Detokenizer,
    WindowDetokenizer,
    detokenizer_of,
)


@pytest.fixture(scope="module")
def byte_tokenizer() -> Any:
    """Every byte is a token of its own, so every character beyond ASCII is split."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


@pytest.fixture(params=["bytes", "window"])
def make(request: pytest.FixtureRequest, byte_tokenizer: Any) -> Callable[[], Detokenizer]:
    """Both ways, over the same tokenizer."""
    if request.param == "window":
        return lambda: WindowDetokenizer(byte_tokenizer)
    assert isinstance(detokenizer_of(byte_tokenizer)(), ByteDetokenizer)
    return detokenizer_of(byte_tokenizer)


def tokens_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    "text", ["plain", "Zürich – 東京", "👩‍🚀🇫🇷 done", " spaces  kept ", "a\n\nb"]
)
def test_the_pieces_joined_are_the_text(
    byte_tokenizer: Any, make: Callable[[], Detokenizer], text: str
) -> None:
    detokenizer = make()
    pieces = [detokenizer.push(token) for token in tokens_of(byte_tokenizer, text)]
    assert "".join(pieces) + detokenizer.finish() == text


def test_no_piece_holds_half_a_character(
    byte_tokenizer: Any, make: Callable[[], Detokenizer]
) -> None:
    detokenizer = make()
    pieces = [detokenizer.push(token) for token in tokens_of(byte_tokenizer, "é東🚀")]
    assert [piece for piece in pieces if piece] == ["é", "東", "🚀"]


def test_bytes_that_never_become_a_character_are_shown_as_replacement(
    byte_tokenizer: Any, make: Callable[[], Detokenizer]
) -> None:
    detokenizer = make()
    half = tokens_of(byte_tokenizer, "東")[:2]
    assert [detokenizer.push(token) for token in half] == ["", ""]
    assert "\ufffd" in detokenizer.finish()


def test_broken_bytes_do_not_hold_back_text_for_ever(
    byte_tokenizer: Any, make: Callable[[], Detokenizer]
) -> None:
    detokenizer = make()
    lead = tokens_of(byte_tokenizer, "東")[0]
    assert "".join(detokenizer.push(lead) for _ in range(20)) != ""


def test_special_tokens_are_not_shown_and_cost_no_growing_work(
    byte_tokenizer: Any, make: Callable[[], Detokenizer]
) -> None:
    detokenizer = make()
    assert "".join(detokenizer.push(byte_tokenizer.eos_token_id) for _ in range(100)) == ""
    if isinstance(detokenizer, WindowDetokenizer):
        assert len(detokenizer._window) < 20
    assert detokenizer.push(tokens_of(byte_tokenizer, "x")[0]) == "x"


@settings(max_examples=200)
@given(st.lists(st.integers(0, 256), max_size=40))
def test_any_tokens_give_the_text_that_the_tokenizer_decodes(
    byte_tokenizer: Any, tokens: list[int]
) -> None:
    detokenizer = detokenizer_of(byte_tokenizer)()
    text = "".join(detokenizer.push(token) for token in tokens) + detokenizer.finish()
    assert text == byte_tokenizer.decode(tokens, skip_special_tokens=True)


def test_added_tokens_are_shown_as_they_are_written(byte_tokenizer: Any) -> None:
    byte_tokenizer = copy.deepcopy(byte_tokenizer)
    byte_tokenizer.add_tokens(["<tool call>", "Ġé"])
    tokens = [*tokens_of(byte_tokenizer, "a"), 257, 258, 9999]
    detokenizer = detokenizer_of(byte_tokenizer)()
    text = "".join(detokenizer.push(token) for token in tokens) + detokenizer.finish()
    assert text == byte_tokenizer.decode(tokens)


def test_a_tokenizer_of_other_pieces_is_decoded_by_windows() -> None:
    tokenizer = Tokenizer(models.BPE(vocab={"\u2581a": 0, "b": 1, "<0xE9>": 2}, merges=[]))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    detokenizer = detokenizer_of(wrapped)()
    assert isinstance(detokenizer, WindowDetokenizer)
    assert [detokenizer.push(token) for token in (0, 1, 0)] == [" a", "b", " a"]
