"""What instances cost, from the catalogue of offers."""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.offers import Offer


def instance_prices(offers: Iterable[Offer], region: str) -> dict[str, float]:
    """USD per hour on demand by instance type; types of SageMaker begin with `ml.`."""
    return {offer.instance_type: offer.usd_per_hour for offer in offers if offer.region == region}
