"""A model's vocabulary with llguidance's tables of it, made before anybody is answered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.grammar.vocabulary import Vocabulary


@dataclass(frozen=True)
class TokenTables:
    """What every grammar over a vocabulary is followed with. `tokenizer` is llguidance's."""

    vocabulary: Vocabulary
    tokenizer: Any


NO_TABLES = RequestRefused(
    "Nothing was read here that grammars need; ask without response_format and guided fields.",
    code="grammar_unsupported",
)
"""Of a model that is served without its tokenizer."""


def read_tables(
    tokenizer: Any, size: int, eos_tokens: Iterable[int]
) -> TokenTables | RequestRefused:
    """Those of a fast tokenizer whose model gives `size` logits; or why it can have no grammars.

    That takes 0.3 s for 49,000 tokens, all the while with Python's lock, so that no other thread of
    the process gets on: call it before the process answers anybody. It starts no thread.
    """
    try:
        vocabulary = Vocabulary.of(tokenizer, size, eos_tokens)
        return TokenTables(vocabulary, vocabulary.open())
    except RequestRefused as error:
        return error
