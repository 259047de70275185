"""`client.offers`: machines that can be rented, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.client.pump import Pump
from tidegate.client.stream import Stream
from tidegate.offers import Covers, Offer
from tidegate.protocol.resources import OfferRefreshed
from tidegate.routes import offers


class Offers:
    """`client.offers`: the hardware catalogue."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump

    def list(
        self,
        gpu: str | None = None,
        min_memory: int | str | None = None,
        region: str | None = None,
        covers: Covers | str | None = None,
    ) -> Stream[Offer]:
        """All of them by id, or those with a type of GPU, or in a region.

        `min_memory` is of one GPU, in bytes or as text such as `40GiB`; `covers` is `ec2` or
        `sagemaker`.
        """
        return self._pump.stream(offers.listing(gpu, min_memory, region, covers))

    def refresh(self, regions: Sequence[str]) -> OfferRefreshed:
        """Ask AWS for the prices of regions anew. Raises Unavailable; then the former ones stay."""
        return self._pump.run(offers.refresh(regions))
