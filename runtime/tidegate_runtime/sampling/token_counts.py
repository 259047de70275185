"""Which tokens a sequence has seen, in arrays that a penalty can be computed on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

Ids = np.ndarray[tuple[int], np.dtype[np.int64]]
Counts = np.ndarray[tuple[int], np.dtype[np.float32]]


class TokenCounts:
    """Every token of the prompt, and of the output with how often it was generated."""

    def __init__(self, prompt: Iterable[int]) -> None:
        seen = list(dict.fromkeys(prompt))
        self._place = {token: place for place, token in enumerate(seen)}
        self._ids = np.array(seen, dtype=np.int64)
        self._counts = np.zeros(len(seen), dtype=np.float32)

    def add(self, token: int) -> None:
        """Count one generated token."""
        place = self._place.setdefault(token, len(self._place))
        if place == len(self._ids):
            self._ids = np.append(self._ids, np.zeros(place + 16, dtype=np.int64))
            self._counts = np.append(self._counts, np.zeros(place + 16, dtype=np.float32))
        self._ids[place] = token
        self._counts[place] += 1

    def with_drafts(self, drafts: Iterable[int]) -> tuple[Ids, Counts]:
        """Copies of the ids `[seen]` and of the counts, as if `drafts` had been generated too."""
        ids, counts = self._ids[: len(self._place)], self._counts[: len(self._place)].copy()
        extra: dict[int, int] = {}
        for token in drafts:
            if (place := self._place.get(token)) is not None:
                counts[place] += 1
            else:
                extra[token] = extra.get(token, 0) + 1
        if not extra:
            return ids.copy(), counts
        return (
            np.append(ids, np.array(list(extra), dtype=np.int64)),
            np.append(counts, np.array(list(extra.values()), dtype=np.float32)),
        )
