"""Deployments on machines that are rented: the plan says which, and what runs stays there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.controlplane.deployments.conftest import PROJECT, MakeSpec, Room

from tidegate.offers import Covers, Offer, bundled_offers
from tidegate_controlplane.deployments.planner import Planner
from tidegate_controlplane.deployments.service import Deployments
from tidegate_controlplane.domain.on_offer import Market

REGION = "us-west-2"
RENTED = {"provisioner": "aws", "gpu": {}}


class Shop:
    """A market whose prices change."""

    def __init__(self) -> None:
        self.offers: list[Offer] = list(bundled_offers())

    async def market(self) -> Market:
        return Market(Covers.SAGEMAKER, REGION, self.offers)

    def price(self, instance_type: str, usd_per_hour: float) -> None:
        self.offers = [
            offer.model_copy(update={"usd_per_hour": usd_per_hour})
            if offer.instance_type == instance_type
            else offer
            for offer in self.offers
        ]


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def renting(room: Room, shop: Shop) -> Deployments:
    """The service of a platform that also rents."""
    own = room.deployments._planner.capabilities
    everywhere = replace(own, provisioners=frozenset({"local", "aws"}), memory_bytes=1)
    planner = Planner(room.database, everywhere, shop.market)
    return Deployments(room.database, planner, room.catalog, room.endpoints, room.logs, room.clock)


async def test_a_dry_run_says_what_would_be_rented_and_what_else_was_looked_at(
    renting: Deployments, spec: MakeSpec
) -> None:
    view = await renting.plan(PROJECT, spec(hardware=RENTED))
    assert view.plan.offer is not None
    assert (view.plan.offer.instance_type, view.plan.offer.minimum_usd_per_month) == (
        "ml.g6.xlarge",
        0.0,
    )
    assert view.offers[0].instance_type == "ml.g6.xlarge" and len(view.offers) > 10
    assert view.warnings == []


async def test_what_is_declared_is_kept_with_its_offer(
    renting: Deployments, spec: MakeSpec
) -> None:
    await renting.apply(PROJECT, spec(hardware=RENTED))
    (revision,) = (await renting.read.revisions(PROJECT, "smol", None, 10)).data
    assert revision.plan.offer is not None
    assert revision.plan.offer.usd_per_hour == 1.1267


async def test_a_dearer_machine_is_kept_by_what_runs_and_left_by_what_is_new(
    renting: Deployments, spec: MakeSpec, shop: Shop
) -> None:
    await renting.apply(PROJECT, spec(hardware=RENTED))
    shop.price("ml.g6.xlarge", 99.0)
    scaled: dict[str, Any] = {"hardware": RENTED, "scaling": {"max_replicas": 5}}
    seen = await renting.plan(PROJECT, spec(**scaled))
    assert not seen.new_revision and seen.plan.offer is not None
    assert seen.plan.offer.instance_type == "ml.g6.xlarge"
    other = await renting.plan(PROJECT, spec(**scaled, runtime={"max_sequences": 8}))
    assert other.new_revision and other.plan.offer is not None
    assert other.plan.offer.instance_type == "ml.g6.2xlarge"


async def test_the_platforms_own_machine_has_no_offer(room: Room, spec: MakeSpec) -> None:
    view = await room.deployments.plan(PROJECT, spec())
    assert view.plan.offer is None and view.offers == []
