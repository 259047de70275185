"""Whether a context-free grammar in Lark ever ends: `start: "a" start` does not.

A rule is productive when some text without rules in it can be made of it, found by counting for
each alternative what it still waits for (Hopcroft and Ullman 1979, lemma 4.1). Terminals are
regular, so that llguidance knows by itself when nothing matches them. What this file cannot read is
believed. Pure.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

_COMMENT = r"//[^\n]*|#[^\n]*"
_LITERAL = r'"(?:\\.|[^"\\\n])*"i?|/(?:\\.|[^/\\\n])+/[a-z]*'
_HIDDEN = re.compile(f"({_LITERAL})|{_COMMENT}")
_TEXT = "·"
"""Stands for a string or a regular expression, of which nothing matters here."""
_SCHEMA = re.compile(r"%(?:regex|json)\s*\{[^{}]*\}")
_LINE = re.compile(r"(?m)^[ \t]*+%(?:llguidance|ignore|import)\b[^\n]*$")
_HEAD = re.compile(r"(?m)^[ \t]*[?!]?(\w+)(?:\.-?\d+)?\s*+(?:\[[^\]]*\])?\s*+:")
_TOKEN = re.compile(
    rf"""\s*(?: (?P<name>[A-Za-z_]\w*) | (?P<text>{_TEXT}(?:\s*\.\.\s*{_TEXT})?|<[^>]*>)
    | (?P<zero>[?*]|\{{\s*(?:0\s*)?,[^}}]*\}}|\{{\s*0\s*\}}|~\s*0\b(?:\s*\.\.\s*\d+)?)
    | (?P<more>\+|\{{[\d\s,]*\}}|~\s*\d+(?:\s*\.\.\s*\d+)?) | (?P<alias>->\s*\w+)
    | (?P<open>[(\[]) | (?P<close>[)\]]) | (?P<or>\|) )\s*""",
    re.VERBOSE,
)


@dataclass
class _Rules:
    """Of each symbol its alternatives, of each alternative the symbols that it needs."""

    alternatives: dict[str, list[list[str | None]]] = field(default_factory=dict)

    def read(self, name: str, body: str) -> bool:
        """Take a rule; groups within it become symbols of their own. False for what is unknown."""
        waiting = [(name, "")]
        self.alternatives[name] = [[]]
        at = 0
        while at < len(body):
            if (found := _TOKEN.match(body, at)) is None:
                return False
            at = found.end()
            inner, opened = waiting[-1]
            sequence = self.alternatives[inner][-1]
            if found["open"]:
                group = f"{name}({len(self.alternatives)}"
                self.alternatives[group] = [[]]
                waiting.append((group, found["open"]))
            elif found["close"]:
                if len(waiting) == 1:
                    return False
                waiting.pop()
                outer = self.alternatives[waiting[-1][0]][-1]
                outer.append(None if opened == "[" else inner)
            elif found["or"]:
                self.alternatives[inner].append([])
            elif found["zero"]:
                if not sequence:
                    return False
                sequence[-1] = None
            elif found["name"] or found["text"]:
                sequence.append(found["name"])
        return len(waiting) == 1

    def productive(self) -> set[str]:
        """The symbols that some text is made of."""
        users: defaultdict[str, list[tuple[str, set[str]]]] = defaultdict(list)
        ready: list[str] = []
        for symbol, alternatives in self.alternatives.items():
            for sequence in alternatives:
                needed = {item for item in sequence if item in self.alternatives and item}
                for item in needed:
                    users[item].append((symbol, needed))
                if not needed:
                    ready.append(symbol)
        found: set[str] = set()
        while ready:
            if (symbol := ready.pop()) in found:
                continue
            found.add(symbol)
            for user, needed in users[symbol]:
                needed.discard(symbol)
                if not needed:
                    ready.append(user)
        return found


def endless_rules(lark: str) -> list[str]:
    """The rules that keep a grammar from ever ending, in their order; none when it can end."""
    text = _HIDDEN.sub(lambda found: _TEXT if found[1] else "", lark)
    text = _LINE.sub("", _SCHEMA.sub(_TEXT, text))
    heads = list(_HEAD.finditer(text))
    rules = _Rules()
    for head, after in zip(heads, [*heads[1:], None], strict=True):
        body = text[head.end() : after.start() if after else len(text)]
        if head[1].upper() != head[1] and not rules.read(head[1], body):
            return []
    productive = rules.productive()
    if "start" in productive or "start" not in rules.alternatives:
        return []
    return [head[1] for head in heads if head[1] in rules.alternatives.keys() - productive]
