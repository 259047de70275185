"""Answers of AWS as they were recorded in shape: a product of the price list, a spot price."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from tidegate.offers import Covers
from tidegate_controlplane.offers.price_list import SERVICES, filters

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
REGION = "eu-west-3"


def product(
    attributes: dict[str, str], usd: str, *, unit: str = "Hrs", sku: str = "J4T9ZF4AJ2DXE7SA"
) -> str:
    """One entry of `PriceList`."""
    dimension = {
        "rateCode": f"{sku}.JRTCKXETXF.6YS6EN2CT7",
        "unit": unit,
        "description": f"${usd} per hour",
        "beginRange": "0",
        "endRange": "Inf",
        "appliesTo": [],
        "pricePerUnit": {"USD": usd},
    }
    term = {
        "sku": sku,
        "offerTermCode": "JRTCKXETXF",
        "effectiveDate": "2026-11-01T00:00:00Z",
        "termAttributes": {},
        "priceDimensions": {dimension["rateCode"]: dimension},
    }
    return json.dumps(
        {
            "product": {
                "productFamily": "Compute Instance",
                "sku": sku,
                "attributes": {"regionCode": REGION, **attributes},
            },
            "serviceCode": "AmazonEC2",
            "terms": {"OnDemand": {f"{sku}.JRTCKXETXF": term}},
            "version": "20261119043334",
            "publicationDate": "2026-11-19T04:33:34Z",
        }
    )


def machine(name: str, usd: str) -> str:
    return product({"instanceType": name, "operatingSystem": "Linux", "vcpu": "4"}, usd)


def hosting(name: str, usd: str) -> str:
    return product(
        {"instanceName": name, "instanceType": f"{name}-Hosting", "component": "Hosting"}, usd
    )


class Aws:
    """Clients that answer from what was put in, in order, and want exactly these questions."""

    def __init__(self, clients: dict[str, Any]) -> None:
        self._clients = clients
        self._stubs = {name: Stubber(client) for name, client in self._clients.items()}
        self.asked: list[tuple[str, str]] = []

    def make_client(self, service: str, region: str) -> Any:
        self.asked.append((service, region))
        return self._clients[service]

    def lists(self, covers: Covers, *pages: list[str]) -> None:
        service = SERVICES[covers]
        for number, products in enumerate(pages):
            wanted: dict[str, Any] = {
                "ServiceCode": service.code,
                "FormatVersion": "aws_v1",
                "Filters": filters(service, REGION),
                "MaxResults": 100,
            }
            if number:
                wanted["NextToken"] = f"page-{number}"
            answer: dict[str, Any] = {"FormatVersion": "aws_v1", "PriceList": products}
            if number + 1 < len(pages):
                answer["NextToken"] = f"page-{number + 1}"
            self._stubs["pricing"].add_response("get_products", answer, wanted)

    def refuses(self, code: str) -> None:
        self._stubs["pricing"].add_client_error("get_products", code, "not for you")

    def sells_spot(self, names: list[str], *prices: tuple[str, str, str]) -> None:
        history = [
            {
                "AvailabilityZone": zone,
                "InstanceType": name,
                "ProductDescription": "Linux/UNIX",
                "SpotPrice": usd,
                "Timestamp": NOW,
            }
            for name, zone, usd in prices
        ]
        wanted = {
            "InstanceTypes": names,
            "ProductDescriptions": ["Linux/UNIX"],
            "StartTime": NOW,
        }
        answer = {"SpotPriceHistory": history, "NextToken": ""}
        self._stubs["ec2"].add_response("describe_spot_price_history", answer, wanted)

    def open(self) -> Iterator[Aws]:
        with ExitStack() as stack:
            for stub in self._stubs.values():
                stack.enter_context(stub)
            yield self
            for stub in self._stubs.values():
                stub.assert_no_pending_responses()


@pytest.fixture(scope="module")
def clients() -> dict[str, Any]:
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    return {name: boto3.client(name, "us-east-1", **keys) for name in ("pricing", "ec2")}


@pytest.fixture
def aws(clients: dict[str, Any]) -> Iterator[Aws]:
    yield from Aws(clients).open()
