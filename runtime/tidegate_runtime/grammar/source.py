"""What a text must look like, in the words of whoever asks for it."""

from __future__ import annotations

import json
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any, Literal

from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.grammar.recursion import check_ends
from tidegate_runtime.grammar.schema import check_schema

MAX_BYTES = 64 * 1024
TOO_COMPLEX = "schema_too_complex"

_EMBEDDED_SCHEMA = "%json"

Kind = Literal["json", "regex", "choice", "ebnf", "lark"]


@dataclass(frozen=True)
class GrammarSource:
    """A grammar as text, checked as far as that goes without compiling it.

    `param` is the field that it came in, for errors. A `lenient` schema only asks for what can be
    kept.
    """

    kind: Kind
    text: str
    param: str
    lenient: bool = False

    def __post_init__(self) -> None:
        size_bytes = len(self.text.encode(errors="surrogatepass"))
        if size_bytes > MAX_BYTES:
            raise RequestRefused(
                f"{self.param}: {size_bytes} bytes are more than the {MAX_BYTES} that a grammar "
                "may have; make it smaller.",
                param=self.param,
                code=TOO_COMPLEX,
            )

    @classmethod
    def json_schema(cls, schema: Any, param: str, *, lenient: bool = False) -> GrammarSource:
        """JSON of a schema. A `lenient` one leaves out what cannot be kept, instead of refusing it.

        Raises RequestRefused that names the place in the schema, the keyword and the remedy.
        """
        made = cls("json", json.dumps(schema, separators=(",", ":")), param, lenient)
        check_schema(schema, param, lenient=lenient)
        check_ends(schema, param)
        return made

    @classmethod
    def json_object(cls, param: str) -> GrammarSource:
        """Any JSON object."""
        return cls("json", '{"type":"object"}', param)

    @classmethod
    def regex(cls, pattern: str, param: str) -> GrammarSource:
        """The whole text matches a regular expression (the syntax of Rust's regex crate)."""
        return cls("regex", pattern, param)

    @classmethod
    def choice(cls, choices: Many[str], param: str) -> GrammarSource:
        """The text is one of some strings."""
        return cls("choice", json.dumps(list(choices)), param)

    @classmethod
    def ebnf(cls, text: str, param: str) -> GrammarSource:
        """A context-free grammar: GBNF (`root ::= …`) or Lark (`start: …`).

        Raises RequestRefused for a schema within it, whose keywords nobody would have checked.
        """
        if _EMBEDDED_SCHEMA in text:
            raise RequestRefused(
                f"{param}: {_EMBEDDED_SCHEMA!r} is not taken in a grammar; ask for a schema alone, "
                "with response_format or guided_json.",
                param=param,
                code="invalid_grammar",
            )
        return cls("ebnf", text, param)

    @classmethod
    def lark(cls, text: str, param: str) -> GrammarSource:
        """Lark as llguidance has it, made by this package: every schema in it was checked."""
        return cls("lark", text, param)
