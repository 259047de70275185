"""Special tokens that a reader needs are shown where they stand."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tidegate_runtime.text.detokenizer import WindowDetokenizer, detokenizer_of
from tidegate_runtime.text.shown_tokens import ShownTokens


def test_a_shown_token_gives_its_text_and_another_special_one_none() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<end>", "[TOOL_CALLS]"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")
    tokens = tokenizer("é[TOOL_CALLS]<end>[", add_special_tokens=False)["input_ids"]
    for make in (detokenizer_of(tokenizer), lambda: WindowDetokenizer(tokenizer)):
        shown = ShownTokens(make, {257: "[TOOL_CALLS]"})
        assert "".join(map(shown.push, tokens)) + shown.finish() == "é[TOOL_CALLS]["
        plain = make()
        assert "".join(map(plain.push, tokens)) + plain.finish() == "é["
        cut = ShownTokens(make, {257: "[TOOL_CALLS]"})
        assert cut.push(tokens[0]) + cut.push(257) == "\ufffd[TOOL_CALLS]"
