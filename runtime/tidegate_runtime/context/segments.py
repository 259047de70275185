"""A text cut into what may be left out: sentences or words, but code and JSON only as a whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(
    r"^[ \t]*(```|~~~)[^\n]*\n.*?^[ \t]*\1[ \t]*$|^[ \t]*(```|~~~).*\Z", re.M | re.S
)
_JSON_START = re.compile(r"^[ \t]*[\[{]", re.M)
_SENTENCE = re.compile(
    r"\s*(?:[^\n.!?。！？]|[.!?](?![\"')\]]*\s))+(?:[.!?。！？]+[\"')\]]*)?|\s+|[.!?。！？]+"
)
_LONG = 400
_CHUNK = re.compile(rf".{{1,{_LONG}}}(?=\s|\Z)|.{{1,{_LONG}}}", re.S)
_WORD = re.compile(r"\s*\S+|\s+")


@dataclass(frozen=True)
class Segment:
    """A piece of a text with the blanks before it. A `whole` one has a syntax of its own."""

    text: str
    whole: bool = False


def sentences(text: str) -> list[Segment]:
    """The sentences and lines of a text, in order; together they are the text.

    What goes on for more than 400 characters is cut between words.
    """
    return [
        part
        for segment in _cut(text, _SENTENCE)
        for part in (
            [segment]
            if segment.whole or len(segment.text) <= _LONG
            else map(Segment, _CHUNK.findall(segment.text))
        )
    ]


def words(text: str) -> list[Segment]:
    """The same by words."""
    return list(_cut(text, _WORD))


def _cut(text: str, pattern: re.Pattern[str]) -> Iterator[Segment]:
    end = 0
    for start, stop in _wholes(text):
        yield from (Segment(found) for found in pattern.findall(text[end:start]))
        yield Segment(text[start:stop], whole=True)
        end = stop
    yield from (Segment(found) for found in pattern.findall(text[end:]))


def _wholes(text: str) -> Iterator[tuple[int, int]]:
    """Where fenced code and JSON documents lie, in order; an unclosed fence goes to the end."""
    end = 0
    for fence in _FENCE.finditer(text):
        yield from _documents(text, end, fence.start())
        yield fence.span()
        end = fence.end()
    yield from _documents(text, end, len(text))


def _documents(text: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Where JSON objects and arrays that begin a line lie between two places."""
    decoder = json.JSONDecoder()
    while found := _JSON_START.search(text, start, stop):
        try:
            _, end = decoder.raw_decode(text, found.end() - 1)
        except (ValueError, RecursionError):
            start = found.end()
            continue
        if end > stop:
            return
        yield found.start(), end
        start = end
