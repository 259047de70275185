"""How close pieces of a text are to a question, by their words alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_NO_BLANKS = "\u3040-\u30ff\u3400-\u9fff"
"""Scripts that put no blanks between words: each character is taken for one."""
_TERM = re.compile(rf"[{_NO_BLANKS}]|[^\W{_NO_BLANKS}]+")
_SATURATION = 1.2
_LENGTH_SHARE = 0.75


def relevance(pieces: Sequence[str], question: str) -> list[float]:
    """BM25 of each piece (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework:
    BM25 and Beyond"), over these pieces; 0 for one that shares no word with the question.
    """
    terms = [Counter(_terms(piece)) for piece in pieces]
    holding = Counter(term for counts in terms for term in counts)
    mean = sum(counts.total() for counts in terms) / max(1, len(terms)) or 1.0
    asked = set(_terms(question))
    rarity = {
        term: math.log(1 + (len(pieces) - holding[term] + 0.5) / (holding[term] + 0.5))
        for term in asked
    }
    return [_bm25(counts, asked, rarity, counts.total() / mean) for counts in terms]


def _bm25(counts: Counter[str], asked: set[str], rarity: dict[str, float], length: float) -> float:
    softened = _SATURATION * (1 - _LENGTH_SHARE + _LENGTH_SHARE * length)
    return math.fsum(
        rarity[term] * counts[term] * (_SATURATION + 1) / (counts[term] + softened)
        for term in asked & counts.keys()
    )


def _terms(text: str) -> list[str]:
    return [found.lower() for found in _TERM.findall(text)]
