"""Machines to rent: the one that was planned for, those that were looked at, and their prices."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field, StringConstraints

from tidegate.offers import Covers
from tidegate.protocol.resources.base import Request, Resource

Region = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-[1-9]$", max_length=32)]
"""Of AWS, such as `us-east-1`."""


class PlannedOffer(Resource):
    """The machine of the catalogue that replicas are planned for. US dollars, without tax.

    The bounds are of one token after another, which reads all of a dense model's weights, and of a
    mixture's only the experts that it uses.
    """

    provider: str
    covers: Covers
    region: str
    instance_type: str
    gpu: str | None = Field(default=None, description="its GPUs' type")
    gpus: int = Field(default=0, description="of one replica")
    slice: str | None = Field(default=None, description="of one GPU, such as `1g.10gb`")
    replicas: int = Field(description="that one machine has room for")
    usable_bytes: int = Field(description="for one replica's weights and KV cache")
    utilisation: float = Field(description="usable_bytes of the memory there is")
    usd_per_hour: float = Field(description="of one machine, on demand")
    spot_usd_per_hour: float | None = None
    source: str = Field(description="who says what it costs")
    as_of: date = Field(description="of the price, or of reading it")
    minimum_usd_per_month: float = Field(
        description="of the replicas that are always there, 730 hours a month; 0 without any"
    )
    decode_tokens_per_s: float | None = Field(
        default=None, description="of one sequence, at most: bandwidth over the weights' bytes"
    )
    batch_tokens_per_s: float | None = Field(
        default=None, description="of max_sequences in one batch, at most"
    )
    usd_per_million_tokens: float | None = Field(
        default=None, description="at least: at batch_tokens_per_s without a pause"
    )


class ConsideredOffer(Resource):
    """An offer that the plan looked at."""

    instance_type: str
    gpu: str | None = None
    gpus: int = 0
    usd_per_hour: float
    usd_per_month: float | None = Field(
        default=None, description="for the replicas always there, at least one; null: does not fit"
    )
    reason: str | None = Field(default=None, description="why it does not fit")


class OfferRefresh(Request):
    """Ask for the prices of AWS regions anew."""

    regions: Annotated[list[Region], Field(min_length=1, max_length=16)]


class OfferRefreshed(Resource):
    regions: list[str]
    offers: int = Field(description="that have a price now, over all regions")
    as_of: date
