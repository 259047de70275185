"""Grammars over a tokenizer of bytes, compiled where they are used."""

from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tidegate_runtime.grammar.definition import definition
from tidegate_runtime.grammar.matcher import Grammar
from tidegate_runtime.grammar.source import GrammarSource
from tidegate_runtime.grammar.vocabulary import Vocabulary

END = 256
SIZE = 257


@cache
def byte_tokenizer() -> Any:
    """Every byte is a token; the last is the end of a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<end>"])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


@cache
def opened_vocabulary() -> Any:
    return Vocabulary.of(byte_tokenizer(), SIZE, {END}).open()


def grammar(source: GrammarSource) -> Grammar:
    text = definition(source.kind, source.text, lenient=source.lenient)
    return Grammar.start(opened_vocabulary(), text)


def regex(pattern: str) -> Grammar:
    return grammar(GrammarSource.regex(pattern, "guided_regex"))


def schema(value: dict[str, Any]) -> Grammar:
    return grammar(GrammarSource.json_schema(value, "guided_json"))


def text_of(tokens: list[int | None]) -> str:
    """The text of generated tokens, without the end."""
    return str(byte_tokenizer().decode([token for token in tokens if token != END]))
