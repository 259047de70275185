"""What a model may write when it must call, or must call rightly."""

from __future__ import annotations

from typing import Any

import llguidance
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tidegate_runtime.grammar.vocabulary import Vocabulary
from tidegate_runtime.tools.grammar import CallGrammar, Signature
from tidegate_runtime.tools.syntax import HERMES, LLAMA3, MISTRAL, CallSyntax

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTIONS = [Signature("weather", CITY), Signature("now", {"type": "object", "properties": {}})]
TAG = 256


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["[TOOL_CALLS]", "<end>"])
    return made


def may_write(tokenizer: Any, grammar: CallGrammar, text: str) -> bool:
    """Whether the text may be written, and the answer end there."""
    vocabulary = Vocabulary(tokenizer.to_str(), 258, (257,)).open()
    matcher = llguidance.LLMatcher(vocabulary, llguidance.grammar_from("lark", grammar.text()))
    assert not matcher.is_error(), matcher.get_error()
    tokens = tokenizer.encode(text, add_special_tokens=False).ids
    return bool(matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting())


def grammar(
    syntax: CallSyntax, *, required: bool = False, single: bool = False, **more: Any
) -> CallGrammar:
    tokens = {"[TOOL_CALLS]": TAG} if syntax is MISTRAL else {}
    return CallGrammar(syntax, FUNCTIONS, tokens, is_required=required, is_single=single, **more)


def written(syntax: CallSyntax, *arguments: str) -> str:
    first, between, last = syntax.written
    calls = [f'{{"name": "weather", "{syntax.arguments}": {one}}}' for one in arguments]
    return first + between.join(calls) + last


BERN, ROME = '{"city": "Bern"}', '{"city": "Rome \\"}"}'
FAMILIES = pytest.mark.parametrize("syntax", [HERMES, LLAMA3, MISTRAL])


@FAMILIES
def test_where_a_call_is_required_nothing_else_may_be_written(
    tokenizer: Any, syntax: CallSyntax
) -> None:
    required = grammar(syntax, required=True)
    for text in (written(syntax, BERN), written(syntax, BERN, ROME)):
        assert may_write(tokenizer, required, text)
    for text in ("Hello.", "", f"Hello. {written(syntax, BERN)}", written(syntax, BERN)[:-3]):
        assert not may_write(tokenizer, required, text)


@FAMILIES
def test_arguments_follow_the_schema_of_their_function(tokenizer: Any, syntax: CallSyntax) -> None:
    for required in (True, False):
        made = grammar(syntax, required=required)
        for wrong in ("{}", '{"town": "Bern"}', '{"city": 5}', '{"city": "Bern", "a": 1}', "[]"):
            assert not may_write(tokenizer, made, written(syntax, wrong))
        missiles = written(syntax, BERN).replace("weather", "missiles")
        assert not may_write(tokenizer, made, missiles)
        assert may_write(tokenizer, made, written(syntax, "{}").replace("weather", "now"))


@FAMILIES
def test_where_a_call_is_optional_words_are_free(tokenizer: Any, syntax: CallSyntax) -> None:
    free = grammar(syntax)
    for text in ("Hello.\n<b> [x] é", written(syntax, BERN), written(syntax, BERN, ROME)):
        assert may_write(tokenizer, free, text)
    if not syntax.bare:
        assert may_write(tokenizer, free, f"I look.\n{written(syntax, BERN)}")


@FAMILIES
def test_one_call_is_the_most_where_calls_may_not_be_parallel(
    tokenizer: Any, syntax: CallSyntax
) -> None:
    for required in (True, False):
        single = grammar(syntax, required=required, single=True)
        assert may_write(tokenizer, single, written(syntax, BERN))
        assert not may_write(tokenizer, single, written(syntax, BERN, ROME))
