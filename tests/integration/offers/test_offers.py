"""The catalogue as callers see it: what came with this version, and what was asked since."""

from __future__ import annotations

import datetime

import httpx
from tests.integration.offers.conftest import PlayedAws

from tidegate.offers import Covers, bundled_offers
from tidegate_controlplane.offers.service import Offers
from tidegate_controlplane.store import offers as rows
from tidegate_controlplane.store.database import Database

URL = "/api/v1/offers"


async def test_what_came_with_this_version_is_there_without_asking_anybody(
    http: httpx.AsyncClient,
) -> None:
    seen, after = [], None
    for _ in range(len(bundled_offers()) // 100 + 1):
        query = {"limit": 100} | ({"after": after} if after else {})
        page = (await http.get(URL, params=query)).json()
        seen += [offer["id"] for offer in page["data"]]
        after = page["next"]
        if not page["has_more"]:
            break
    assert seen == sorted(offer.id for offer in bundled_offers())


async def test_offers_are_narrowed_by_gpu_its_memory_region_and_what_the_price_covers(
    http: httpx.AsyncClient,
) -> None:
    query = {"gpu": "A100", "min_memory": "60GiB", "region": "us-east-1", "covers": "ec2"}
    found = (await http.get(URL, params=query)).json()["data"]
    assert [offer["instance_type"] for offer in found] == ["p4de.24xlarge"]
    assert found[0]["gpu"]["name"] == "A100-80GB"
    assert found[0]["usd_per_hour"] == 27.44705
    assert found[0]["source"] and found[0]["as_of"] == "2026-01-21"


async def test_a_parameter_that_is_no_size_is_refused_by_name(http: httpx.AsyncClient) -> None:
    answer = await http.get(URL, params={"min_memory": "plenty"})
    assert answer.status_code == 400
    assert "min_memory" in answer.json()["detail"]


async def test_a_refreshed_price_takes_the_place_of_an_older_one(
    http: httpx.AsyncClient, played: PlayedAws
) -> None:
    played.usd_per_hour = 0.5
    regions = ["us-west-2", "eu-west-3"]
    done = await http.post(f"{URL}/refresh", json={"regions": regions})
    assert done.status_code == 200
    assert (done.json()["regions"], done.json()["offers"]) == (regions, 2)
    query = {"covers": "sagemaker", "gpu": "L4", "limit": 100}
    prices = {
        offer["id"]: offer["usd_per_hour"]
        for offer in (await http.get(URL, params=query)).json()["data"]
    }
    assert prices["aws:sagemaker:us-west-2:ml.g6.xlarge"] == 0.5
    assert prices["aws:sagemaker:eu-west-3:ml.g6.xlarge"] == 0.5
    assert prices["aws:sagemaker:us-west-2:ml.g6.2xlarge"] == 1.222


async def test_a_refresh_that_fails_in_one_region_keeps_every_former_price(
    http: httpx.AsyncClient, played: PlayedAws, offers: Offers
) -> None:
    await offers.refresh(["eu-west-3"])
    before = await offers.all()
    played.usd_per_hour, played.away = 9.0, {"us-west-2"}
    answer = await http.post(f"{URL}/refresh", json={"regions": ["eu-west-3", "us-west-2"]})
    assert (answer.status_code, answer.json()["code"]) == (503, "prices_unavailable")
    assert await offers.all() == before


async def test_no_region_is_refused_as_an_empty_list_and_as_nonsense(
    http: httpx.AsyncClient,
) -> None:
    for regions in ([], ["everywhere"], ["us-east-1"] * 17):
        answer = await http.post(f"{URL}/refresh", json={"regions": regions})
        assert answer.status_code == 422, answer.text
        assert "regions" in answer.text


async def test_a_newer_version_of_the_bundle_wins_over_an_older_row(
    database: Database, offers: Offers
) -> None:
    bundled = next(o for o in bundled_offers() if o.covers is Covers.SAGEMAKER)
    for days, wins in ((-1, False), (0, True)):
        as_of = bundled.as_of + datetime.timedelta(days=days)
        row = bundled.model_copy(update={"usd_per_hour": 77.0, "as_of": as_of})
        now = datetime.datetime.now(datetime.UTC)
        await database.write(lambda session, row=row, now=now: rows.record(session, [row], now))
        found = next(offer for offer in await offers.all() if offer.id == bundled.id)
        assert (found.usd_per_hour == 77.0) is wins
