"""Prices of AWS as AWS tells them now. Everything here blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from tidegate.offers import Covers, Offer, bundled_hardware
from tidegate_controlplane.errors import Unavailable
from tidegate_controlplane.offers.price_list import SERVICES, Service, filters, priced

PRICE_LIST_REGION = "us-east-1"
"""One of the few where the price list is served; it knows the prices of all regions."""
PAGE_PRODUCTS = 100
SPOT_SYSTEM = "Linux/UNIX"
ML = "ml."
KEPT = "the prices that were known stay"

MakeClient = Callable[[str, str], Any]
"""From a service and a region to its client, whose methods are made at run time."""


def new_client(service: str, region: str) -> Any:
    """A client with the credentials of this process, and bounded waits: somebody stands there."""
    import boto3  # half a second, for what is seldom asked
    from botocore.config import Config

    waits = Config(connect_timeout=3, read_timeout=20, retries={"mode": "standard"})
    return boto3.client(service, region_name=region, config=waits)  # type: ignore[call-overload]


def ask_aws(region: str, now: datetime, make_client: MakeClient = new_client) -> list[Offer]:
    """Every offer of a region, of the machines whose hardware is known.

    Raises Unavailable when AWS cannot be asked, or answers what is no price list.
    """
    with _said_plainly(region):
        listed = make_client("pricing", PRICE_LIST_REGION)
        on_demand = {
            covers: dict(_on_demand(listed, service, region))
            for covers, service in SERVICES.items()
        }
        names = sorted(on_demand[Covers.EC2].keys() & bundled_hardware().keys())
        spot = lowest_spot(make_client("ec2", region), names, now) if names else {}
        return [
            offer
            for covers, prices in on_demand.items()
            for offer in _offers(covers, region, prices, spot, now)
        ]


def _offers(
    covers: Covers,
    region: str,
    prices: Mapping[str, float],
    spot: Mapping[str, float],
    now: datetime,
) -> Iterator[Offer]:
    known = bundled_hardware()
    for name, usd in prices.items():
        hardware = known.get(name.removeprefix(ML))
        if hardware is not None:
            yield Offer(
                **dict(hardware),
                covers=covers,
                region=region,
                instance_type=name,
                usd_per_hour=usd,
                spot_usd_per_hour=spot.get(name),
                source=f"AWS Price List API, {SERVICES[covers].code}",
                as_of=now.date(),
            )


def _on_demand(client: Any, service: Service, region: str) -> Iterator[tuple[str, float]]:
    pages = client.get_paginator("get_products").paginate(
        ServiceCode=service.code,
        FormatVersion="aws_v1",
        Filters=filters(service, region),
        PaginationConfig={"PageSize": PAGE_PRODUCTS},
    )
    for page in pages:
        for product in page["PriceList"]:
            if found := _read(service, product):
                yield found


def _read(service: Service, product: str) -> tuple[str, float] | None:
    try:
        return priced(service, product)
    except (ValueError, KeyError, TypeError) as error:
        raise _unavailable(
            f"what AWS answered for {service.code} is no price list ({error!r}); {KEPT}"
        ) from error


def lowest_spot(client: Any, names: Collection[str], now: datetime) -> dict[str, float]:
    """The lowest spot price of the region's zones that holds now, by machine type."""
    pages = client.get_paginator("describe_spot_price_history").paginate(
        InstanceTypes=list(names), ProductDescriptions=[SPOT_SYSTEM], StartTime=now
    )
    found: dict[str, float] = {}
    for page in pages:
        for entry in page["SpotPriceHistory"]:
            name, usd = entry["InstanceType"], float(entry["SpotPrice"])
            found[name] = min(usd, found.get(name, usd))
    return found


@contextmanager
def _said_plainly(region: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError:
        raise _unavailable(
            f"AWS cannot be asked for the prices of {region}: this process has no credentials; "
            "start it with AWS_PROFILE, or with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; "
            f"{KEPT}"
        ) from None
    except ClientError as error:
        raise _unavailable(
            f"AWS refused to tell the prices of {region}: {error}; allow this process "
            f"pricing:GetProducts and ec2:DescribeSpotPriceHistory; {KEPT}"
        ) from error
    except BotoCoreError as error:
        raise _unavailable(
            f"AWS cannot be asked for the prices of {region}: {error}; {KEPT}"
        ) from error


def _unavailable(message: str) -> Unavailable:
    return Unavailable(message, code="prices_unavailable")
