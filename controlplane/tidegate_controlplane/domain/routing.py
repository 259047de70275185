"""Which replica answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
