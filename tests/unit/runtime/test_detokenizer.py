from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tidegate_runtime.engine.detokenizer import Detokenizer


@pytest.fixture(scope="module")
def byte_tokenizer() -> Any:
    """Every byte is a token of its own, so every character beyond ASCII is split."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def tokens_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    "text", ["plain", "Zürich – 東京", "👩‍🚀🇫🇷 done", " spaces  kept ", "a\n\nb"]
)
def test_the_pieces_joined_are_the_text(byte_tokenizer: Any, text: str) -> None:
    detokenizer = Detokenizer(byte_tokenizer)
    pieces = [detokenizer.push(token) for token in tokens_of(byte_tokenizer, text)]
    assert "".join(pieces) + detokenizer.finish() == text


def test_no_piece_holds_half_a_character(byte_tokenizer: Any) -> None:
    detokenizer = Detokenizer(byte_tokenizer)
    pieces = [detokenizer.push(token) for token in tokens_of(byte_tokenizer, "é東🚀")]
    assert [piece for piece in pieces if piece] == ["é", "東", "🚀"]


def test_bytes_that_never_become_a_character_are_shown_as_replacement(byte_tokenizer: Any) -> None:
    detokenizer = Detokenizer(byte_tokenizer)
    half = tokens_of(byte_tokenizer, "東")[:2]
    assert [detokenizer.push(token) for token in half] == ["", ""]
    assert "\ufffd" in detokenizer.finish()


def test_broken_bytes_do_not_hold_back_text_for_ever(byte_tokenizer: Any) -> None:
    detokenizer = Detokenizer(byte_tokenizer)
    lead = tokens_of(byte_tokenizer, "東")[0]
    assert "".join(detokenizer.push(lead) for _ in range(20)) != ""


def test_special_tokens_are_not_shown_and_cost_no_growing_work(byte_tokenizer: Any) -> None:
    detokenizer = Detokenizer(byte_tokenizer)
    assert "".join(detokenizer.push(byte_tokenizer.eos_token_id) for _ in range(100)) == ""
    assert len(detokenizer._window) < 20
    assert detokenizer.push(tokens_of(byte_tokenizer, "x")[0]) == "x"
