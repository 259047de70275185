"""The hardware catalogue: what there is to rent, and what it costs."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.types import ControllerRouterHandler
from pydantic import ByteSize, Field

from tidegate.offers import Covers, Offer
from tidegate.protocol.resources import OfferRefresh, OfferRefreshed, Page
from tidegate_controlplane.api.declaration import DECLARATION_BYTES
from tidegate_controlplane.domain.catalogue import Wanted
from tidegate_controlplane.offers.service import Offers
from tidegate_controlplane.web.answer import answer
from tidegate_controlplane.web.body import read_model
from tidegate_controlplane.web.openapi import describe
from tidegate_controlplane.web.query import PageQuery, read_query

AnyRequest = Request[Any, Any, Any]


class OfferQuery(PageQuery):
    gpu: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="type of its GPUs, such as `L4`, or `A100` for every kind of it"
    )
    min_memory: Annotated[ByteSize, Field(ge=0)] = Field(
        default=ByteSize(0),
        description="of one GPU, or of a machine without, as bytes or text such as `40GiB`",
    )
    region: Annotated[str, Field(max_length=32)] | None = None
    covers: Covers | None = None


@get(
    "/api/v1/offers",
    opt=describe("What there is to rent, by id", query=OfferQuery, answers={200: Page[Offer]}),
)
async def list_offers(request: AnyRequest, offers: NamedDependency[Offers]) -> Response[bytes]:
    query = read_query(request, OfferQuery)
    wanted = Wanted(query.gpu, int(query.min_memory), query.region, query.covers)
    return answer(await offers.page(wanted, query.after, query.limit))


@post(
    "/api/v1/offers/refresh",
    status_code=200,
    opt=describe(
        "Ask AWS for the prices of regions anew",
        body=OfferRefresh,
        answers={200: OfferRefreshed},
        refuses=(503,),
    ),
)
async def refresh_offers(request: AnyRequest, offers: NamedDependency[Offers]) -> Response[bytes]:
    wanted = await read_model(request, OfferRefresh, DECLARATION_BYTES)
    return answer(await offers.refresh(wanted.regions))


HANDLERS: list[ControllerRouterHandler] = [list_offers, refresh_offers]
