"""What AWS' price list says of one product, and how it is asked.

Source: AWS Price List Query API, `GetProducts`; a product is a JSON text with its attributes and
terms. Only what is sold by the hour on demand has a price here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.offers import Covers

HOURS = "Hrs"


@dataclass(frozen=True)
class Service:
    """A part of the price list, and which of its products are machines as we rent them."""

    code: str
    type_attribute: str
    """That says the machine's type."""
    filters: Mapping[str, str]


SERVICES = {
    Covers.EC2: Service(
        "AmazonEC2",
        "instanceType",
        {
            "operatingSystem": "Linux",
            "tenancy": "Shared",
            "preInstalledSw": "NA",
            "capacitystatus": "Used",
            "marketoption": "OnDemand",
        },
    ),
    Covers.SAGEMAKER: Service("AmazonSageMaker", "instanceName", {"component": "Hosting"}),
}


def filters(service: Service, region: str) -> list[dict[str, str]]:
    """The `Filters` of a request for a region's products."""
    wanted = {**service.filters, "regionCode": region}
    return [{"Type": "TERM_MATCH", "Field": key, "Value": text} for key, text in wanted.items()]


def priced(service: Service, product: str) -> tuple[str, float] | None:
    """A product's machine type and US dollars per hour; None when it is not sold by the hour.

    Raises ValueError, KeyError or TypeError when the text is no product.
    """
    content = json.loads(product)
    prices = list(_hourly_usd(content.get("terms", {}).get("OnDemand", {})))
    name: str = content["product"]["attributes"][service.type_attribute]
    return (name, max(prices)) if prices else None


def _hourly_usd(terms: Mapping[str, Any]) -> list[float]:
    """A price of 0 stands for something that is paid elsewhere, such as a reservation."""
    found = [
        float(dimension["pricePerUnit"].get("USD", 0))
        for term in terms.values()
        for dimension in term["priceDimensions"].values()
        if dimension["unit"] == HOURS
    ]
    return [usd for usd in found if usd > 0]
