"""Grammars that let a model write nothing but calls, or no call that does not fit.

Written in the notation of llguidance, which has JSON schemas (`%json`) and tokens by number
(`<[5]>`) within a grammar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate_runtime.tools.syntax import CallSyntax

_ANY = r"/[\s\S]*/"


@dataclass(frozen=True)
class Signature:
    """A function and the schema of its arguments; a `lenient` one is kept as far as it can be."""

    name: str
    schema: Mapping[str, Any]
    lenient: bool = True


@dataclass(frozen=True)
class CallGrammar:
    """What an answer may be: calls of `functions`, one or several, and words alone or before them
    unless a call `is_required`. `tokens` are the special ones among the letters around calls.
    """

    syntax: CallSyntax
    functions: Sequence[Signature]
    tokens: Mapping[str, int]
    is_required: bool
    is_single: bool

    def text(self) -> str:
        """The grammar."""
        rules = [f"start: {self._start()}", *self._words(), f"call: {self._alternatives()}"]
        for place, function in enumerate(self.functions):
            begun = f'{{"name": {json.dumps(function.name)}, "{self.syntax.arguments}": '
            rules.append(f'call_{place}: {json.dumps(begun)} arguments_{place} "}}"')
            rules.append(f"arguments_{place}: %json {_schema(function)}")
        return "\n".join(rules)

    def _start(self) -> str:
        first, between, last = map(self._letters, self.syntax.written)
        more = "" if self.is_single else f"({between} call)*"
        rest = f"call {more} {last}"
        if self.is_required:
            return f"{first} {rest}"
        if self._begins_with_token:
            return f"words | words {first} {rest}"
        return f"words | {first} {rest}" if self.syntax.bare else f"words | opened {rest}"

    def _words(self) -> list[str]:
        """Words that hold no call."""
        syntax = self.syntax
        if self.is_required:
            return []
        if self._begins_with_token:
            return [f"words: {_ANY}"]
        if syntax.bare:
            return ["words: WORDS", rf"WORDS: {_ANY} & ~/\s*\{{[\s\S]*/"]
        opening, first = _regex(syntax.opening), _regex(syntax.written[0])
        return [
            "words: WORDS",
            rf"WORDS: {_ANY} & ~/[\s\S]*{opening}[\s\S]*/",
            rf"opened[lazy]: /[\s\S]*{first}/",
        ]

    def _alternatives(self) -> str:
        return " | ".join(f"call_{place}" for place in range(len(self.functions)))

    @property
    def _begins_with_token(self) -> bool:
        return any(self.syntax.written[0].startswith(text) for text in self.tokens)

    def _letters(self, text: str) -> str:
        """Text as a part of a rule, its special tokens by number."""
        if not self.tokens:
            return json.dumps(text) if text else ""
        parts = re.split(f"({'|'.join(map(re.escape, self.tokens))})", text)
        return " ".join(
            f"<[{self.tokens[part]}]>" if part in self.tokens else json.dumps(part)
            for part in parts
            if part
        )


def _schema(function: Signature) -> str:
    """The arguments as JSON with a space after each comma and colon, as templates show them."""
    options: dict[str, Any] = {
        "whitespace_flexible": False,
        "item_separator": ", ",
        "key_separator": ": ",
    }
    options |= {"lenient": function.lenient, "coerce_one_of": function.lenient}
    return json.dumps({**function.schema, "x-guidance": options})


def _regex(text: str) -> str:
    """Letters within `/…/`."""
    return re.escape(text).replace("/", r"\/").replace("\n", "n")
