"""Which replica answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A ready replica, its requests in flight and the number it runs at once."""

    replica_id: str
    in_flight: int
    capacity: int

    @property
    def load(self) -> float:
        """Requests in flight over capacity; above 1 they queue in the replica."""
        return self.in_flight / self.capacity


def choose(candidates: Sequence[Candidate], exclude: Collection[str] = ()) -> str | None:
    """The id of the least loaded candidate; one in `exclude` only when there is no other.

    Equal loads go to the smaller id, so that few requests keep few replicas warm and the others
    can scale down. None when there is no candidate.
    """
    preferred = [c for c in candidates if c.replica_id not in exclude] or list(candidates)
    if not preferred:
        return None
    return min(preferred, key=lambda c: (c.load, c.replica_id)).replica_id


class WeightedTurns:
    """Whose turn it is, in shares: smooth weighted round robin, as in nginx.

    Each turn raises every credit by its weight and takes the whole from the one who goes.
    """

    def __init__(self) -> None:
        self._weights: dict[str, float] = {}
        self._credit: dict[str, float] = {}

    def set(self, weights: Mapping[str, float]) -> None:
        """Change the shares; what each is owed stays."""
        self._weights = {key: weight for key, weight in weights.items() if weight > 0}
        self._credit = {key: self._credit.get(key, 0.0) for key in self._weights}

    def next(self, able: Collection[str]) -> str | None:
        """The next of those who are able; None when none of them has a share."""
        weights = {key: weight for key, weight in self._weights.items() if key in able}
        if not weights:
            return None
        for key, weight in weights.items():
            self._credit[key] += weight
        chosen = max(weights, key=lambda key: (self._credit[key], key))
        self._credit[chosen] -= sum(weights.values())
        return chosen
