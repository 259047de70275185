"""Tokens that give no text by themselves, shown all the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tidegate_runtime.text.detokenizer import Detokenizer


class ShownTokens:
    """Wraps a detokenizer: the tokens of `shown` give their text, and split the rest into parts."""

    def __init__(self, make: Callable[[], Detokenizer], shown: Mapping[int, str]) -> None:
        self._make = make
        self._shown = shown
        self._part = make()

    def push(self, token: int) -> str:
        if token not in self._shown:
            return self._part.push(token)
        ended, self._part = self._part, self._make()
        return ended.finish() + self._shown[token]

    def finish(self) -> str:
        return self._part.finish()
