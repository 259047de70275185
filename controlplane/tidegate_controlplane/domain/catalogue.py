"""The catalogue that holds now: what came with this version, and what was asked since."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tidegate.offers import Covers, Offer


@dataclass(frozen=True)
class Wanted:
    """Which offers somebody wants to see."""

    gpu: str | None = None
    """A type, as declarations name it."""
    min_memory_bytes: int = 0
    """Of one GPU; of the machine where it has none."""
    region: str | None = None
    covers: Covers | None = None

    def takes(self, offer: Offer) -> bool:
        """Whether it is one of them."""
        memory_bytes = offer.gpu.memory_bytes if offer.gpu else offer.memory_bytes
        return (
            (self.gpu is None or (offer.gpu is not None and offer.gpu.is_a(self.gpu)))
            and memory_bytes >= self.min_memory_bytes
            and self.region in (None, offer.region)
            and self.covers in (None, offer.covers)
        )


def merged(bundled: Iterable[Offer], recorded: Iterable[Offer]) -> list[Offer]:
    """Every offer once, by id: of two the newer one, and of one day the one that was asked for."""
    found = {offer.id: offer for offer in bundled}
    for offer in recorded:
        former = found.get(offer.id)
        if former is None or offer.as_of >= former.as_of:
            found[offer.id] = offer
    return [found[key] for key in sorted(found)]
