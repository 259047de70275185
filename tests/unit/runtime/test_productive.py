"""Which grammars can end, in Lark as llguidance takes it."""

import pytest
from llguidance.gbnf_to_lark import any_to_lark

from tidegate_runtime.grammar.productive import endless_rules


@pytest.mark.parametrize(
    ("grammar", "rules"),
    [
        ('root ::= "a" root', ["start"]),
        (
            'root ::= "a" in-ner\nin-ner ::= "b" y | y\ny ::= "(" in-ner ")"',
            ["start", "in_ner", "y"],
        ),
        ('start: "a" a\na: b\nb: a', ["start", "a", "b"]),
        ('start: "a" (start | b) C\nb: [C] start\nC: "c"', ["start", "b"]),
        ('start: "a" start~2..3', ["start"]),
        ('start: "a" start{1,3}', ["start"]),
        ('start: ("a" start)+ | (start | start) "b"', ["start"]),
        ('start: x\nx[max_tokens=3, stop="y"]: "(" x ")" // | "b"\n', ["start", "x"]),
        ('start: "a".."c" start -> again', ["start"]),
        ("start: /a|b/i start\n%ignore /\\s+/", ["start"]),
    ],
)
def test_a_grammar_without_an_end_is_seen_with_its_rules(grammar: str, rules: list[str]) -> None:
    assert endless_rules(any_to_lark(grammar)) == rules


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "a" root | "b"',
        'start: "a" start?',
        'start: "a" start*',
        'start: "a" [start]',
        'start: "a" start{0,3}',
        'start: "a" start{,3}',
        'start: "a" start~0..3',
        'start: "a" (start | )',
        'start: "a" start |',
        'start: ("a" | start "b")+',
        'start: "a"\n  | "b" start // "|"',
        'start: "a" | b\nb: "x" b',
        'start: x\nx: "#" x | y\ny: %regex {"substring_words": "a: b"}',
        'start: e\ne: e "+" e | "(" e ")" | NUM\nNUM: /[0-9]+/',
        "start: <think> /(?s:.*)/ </think> x\nx: <[12]> | x x",
        '%llguidance {"a": 1}\n%import common.INT -> N\nstart: N start | N',
        'start: a::0\na::_: "x" a::1',
    ],
)
def test_a_grammar_that_can_end_or_cannot_be_read_is_left_alone(grammar: str) -> None:
    assert endless_rules(any_to_lark(grammar)) == []
