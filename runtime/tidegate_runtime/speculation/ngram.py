"""Guesses from the text itself: what followed the last time these tokens were here.

Prompt lookup (Saxena 2023) over prompt and output, with an index that grows by each token instead
of a search, as in suffix decoding (Oliaro et al. 2024). Right when a text is summarised, edited,
quoted or repeated, and free of weights.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tidegate_runtime.engine.sequence import Sequence, Tokens
from tidegate_runtime.speculation.base import MAX_DRAFTS, Reach

_LONG = 3
_SHORT = 2
_TOKEN_BITS = 21
_SHORT_MASK = (1 << _SHORT * _TOKEN_BITS) - 1
_COMPARED = 32
_KIND_STARTS = (4, 8, 16, _COMPARED)
_BULK = 64


class NgramProposer:
    """Looks each sequence's last tokens up in its own past."""

    at_once = True

    def __init__(self, max_tokens: int = MAX_DRAFTS) -> None:
        self._max_tokens = max_tokens
        self._histories: dict[Sequence, _History] = {}

    def reach(self, sequence: Sequence) -> Reach:
        history = self._histories.get(sequence)
        if history is None:
            history = self._histories[sequence] = _History()
        matched = history.match(sequence.tokens)
        if not matched:
            return Reach(0)
        return Reach(self._max_tokens, sum(matched >= start for start in _KIND_STARTS))

    def propose(self, wanted: Mapping[Sequence, int]) -> dict[Sequence, list[int]]:
        return {
            sequence: self._histories[sequence].continuation(sequence.tokens, count)
            for sequence, count in wanted.items()
        }

    def forget(self, sequence: Sequence) -> None:
        self._histories.pop(sequence, None)


class _History:
    """Where each run of three, and of two, tokens of one text was followed last.

    `_followed` tells by a packed run the place after it. Invariant: it holds the runs that end
    before `_indexed`, which never include the last token, or a text would find itself.
    """

    def __init__(self) -> None:
        self._followed: dict[int, int] = {}
        self._indexed = 0
        self._place = 0

    def match(self, tokens: Tokens) -> int:
        """Find what to continue; returns how many tokens before it agree, 0 when there is none.

        The place that was followed so far is kept while it agrees with more of the text than the
        latest place with the same three or two tokens.
        """
        if len(tokens) <= _LONG:
            return 0
        moved = self._place + len(tokens) - 1 - self._indexed if self._place else 0
        self._index(tokens)
        run = _pack(tokens[-_LONG:].tolist())
        found = self._followed.get(run) or self._followed.get(_short(run)) or 0
        best = 0
        self._place = 0
        for place in {found, moved} - {0}:
            agreed = _agreement(tokens, place)
            if agreed >= _SHORT and (agreed, place) > (best, self._place):
                best, self._place = agreed, place
        return best

    def continuation(self, tokens: Tokens, count: int) -> list[int]:
        """The `count` tokens that follow the matched place; past the end it repeats itself."""
        known = tokens[self._place : self._place + count].tolist()
        return [known[place % len(known)] for place in range(count)]

    def _index(self, tokens: Tokens) -> None:
        """Take every run that ends before the last token."""
        start, end = max(self._indexed, _LONG - 1), len(tokens) - 1
        if end - start > _BULK:
            wide = tokens.astype(np.int64)
            short = wide[start - 1 : end - 1] << _TOKEN_BITS | wide[start:end]
            runs = wide[start - 2 : end - 2] << 2 * _TOKEN_BITS | short
            after = range(start + 1, end + 1)
            self._followed.update(zip(runs.tolist(), after, strict=True))
            self._followed.update(zip((-1 - short).tolist(), after, strict=True))
        elif end > start:
            recent = tokens[start - _LONG + 1 : end].tolist()
            for place in range(start, end):
                run = _pack(recent[place - start : place - start + _LONG])
                self._followed[run] = self._followed[_short(run)] = place + 1
        self._indexed = max(self._indexed, end)


def _pack(run: list[int]) -> int:
    first, second, third = run
    return first << 2 * _TOKEN_BITS | second << _TOKEN_BITS | third


def _short(run: int) -> int:
    """The key of a run's last two tokens; negative, so that it is never that of three."""
    return -1 - (run & _SHORT_MASK)


def _agreement(tokens: Tokens, place: int) -> int:
    """How many tokens before `place` equal those at the end, as far as is compared."""
    count = min(place, _COMPARED)
    same = tokens[place - count : place] == tokens[len(tokens) - count :]
    differing = np.flatnonzero(~same)
    return count - 1 - int(differing[-1]) if len(differing) else count
