"""The hardware catalogue."""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.flow.pages import pages, read
from tidegate.flow.steps import Emitting, Flow, Request, ask
from tidegate.offers import Covers, Offer
from tidegate.protocol.resources import OfferRefreshed

ROOT = "/api/v1/offers"


def listing(
    gpu: str | None, min_memory: int | str | None, region: str | None, covers: Covers | str | None
) -> Emitting[Offer]:
    query = {"gpu": gpu, "min_memory": min_memory, "region": region, "covers": covers}
    given = {name: str(value) for name, value in query.items() if value is not None}
    return pages(Request("GET", ROOT, query=given), Offer, lambda offer: offer)


def refresh(regions: Sequence[str]) -> Flow[OfferRefreshed]:
    reply = yield from ask(Request("POST", f"{ROOT}/refresh", json={"regions": list(regions)}))
    return read(reply, OfferRefreshed)
