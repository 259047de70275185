"""The service behind `/api/v1/offers`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from tidegate.offers import Covers, Offer, bundled_offers
from tidegate.protocol.resources import OfferRefreshed, Page
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.deployments.cursors import page
from tidegate_controlplane.domain.catalogue import Wanted, merged
from tidegate_controlplane.domain.on_offer import Market
from tidegate_controlplane.offers.aws import ask_aws
from tidegate_controlplane.store import offers as rows
from tidegate_controlplane.store.database import Database

Ask = Callable[[str, datetime], list[Offer]]
"""From a region and the time to its offers; blocks. Raises Unavailable."""


class Offers:
    def __init__(self, database: Database, clock: Clock, ask: Ask = ask_aws) -> None:
        self._database = database
        self._clock = clock
        self._ask = ask

    async def all(self) -> list[Offer]:
        """What holds now, by id."""
        return merged(bundled_offers(), await self._database.read(rows.recorded))

    async def market(self, region: str) -> Market:
        """Where SageMaker hosts models in a region."""
        return Market(Covers.SAGEMAKER, region, await self.all())

    async def page(self, wanted: Wanted, after: str | None, limit: int) -> Page[Offer]:
        """At most `limit` after the id `after`, by id."""
        found = [
            offer
            for offer in await self.all()
            if wanted.takes(offer) and (after is None or offer.id > after)
        ]
        return page(found[: limit + 1], limit, lambda offer: offer.id)

    async def refresh(self, regions: Sequence[str]) -> OfferRefreshed:
        """Ask for the prices of regions anew: all of them are kept, or none.

        Raises Unavailable; what was known before stays.
        """
        now = self._clock.now()
        asked = [await asyncio.to_thread(self._ask, region, now) for region in regions]
        found = [offer for offers in asked for offer in offers]
        await self._database.write(lambda session: rows.record(session, found, now))
        return OfferRefreshed(regions=list(regions), offers=len(found), as_of=now.date())
