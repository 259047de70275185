"""From a grammar's source to llguidance's own text, and what its errors say in short."""

from __future__ import annotations

import json
import re
from typing import Any

import llguidance

from tidegate_runtime.grammar.source import Kind

WHITESPACE = r"[ \t]?|\n[ \t]{0,64}"
"""Between the tokens of JSON: enough to indent it, and not so much that a model could go on with
spaces for ever."""
LIMITS = llguidance.LLParserLimits(
    max_items_in_row=1000, step_lexer_fuel=60_000, verbose_errors=False
)
"""What one token may cost, roughly: a row of the parser is gone through once for every other."""
_REASON_CHARS = 300
_MEANINGS = {
    "NoExtensionBias": "no text satisfies it",
    "NoExtension": "only the empty text satisfies it",
}
_MODIFIED_START = re.compile(r"(?m)^[ \t]*[?!]start(\.-?\d+)?[ \t]*:(?!:=)")
"""Lark that llguidance takes for GBNF, since it knows Lark by a line that begins with `start:`."""
_IN_OTHER_WORDS = [
    (
        re.compile(r"Failed to convert the grammar from GBNF to Lark: "),
        "it has no rule 'start:', so it is not Lark, and it is not GBNF ('root ::= …'): ",
    ),
    (
        re.compile(r"Resource '([^']*)' is not present in a registry.*"),
        r"the '$ref' to '\1' leads out of the schema; put what it names under '$defs'",
    ),
    (
        re.compile(r"oneOf constraints are not supported\. Enable 'coerce_one_of' option.*"),
        "the branches of a 'oneOf' do not exclude each other; write 'anyOf'",
    ),
]
"""Errors of llguidance that name its own options, and what they mean to whoever wrote a schema."""


def definition(kind: Kind, text: str, *, lenient: bool) -> str:
    """llguidance's text. Raises ValueError for what is not in the notation of its kind."""
    if kind == "json":
        options: Any = {"whitespace_flexible": True, "whitespace_pattern": WHITESPACE}
        options |= {"lenient": lenient, "coerce_one_of": lenient}
        return str(llguidance.LLMatcher.grammar_from_json_schema(text, overrides=options))
    if kind == "choice":
        alternatives = " | ".join(json.dumps(item) for item in json.loads(text))
        return str(llguidance.LLMatcher.grammar_from_lark(f"start: {alternatives}"))
    if kind == "ebnf" and _MODIFIED_START.search(text):
        return str(llguidance.grammar_from("lark", text))
    return str(llguidance.grammar_from(kind, text))


def reason(error: str) -> str:
    """The line of an error that says what is wrong."""
    # What follows is the state of the parser.
    said = error.split("<state>")[0].split("<non-verbose/>")[0]
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    first = lines[0] if lines else error
    telling = next((line for line in lines if line.startswith("error: ")), first)
    meaning = _MEANINGS.get(telling, telling.removeprefix("error: "))
    for theirs, ours in _IN_OTHER_WORDS:
        meaning = theirs.sub(ours, meaning)
    return meaning[:_REASON_CHARS].rstrip(".")
