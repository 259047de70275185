"""The catalogue behind its routes, over a real database; AWS is played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from tidegate.offers import Covers, Offer, bundled_hardware
from tidegate_controlplane.access.keys import KeyService
from tidegate_controlplane.access.pepper import load_pepper
from tidegate_controlplane.access.quota import Quotas
from tidegate_controlplane.api.offers import HANDLERS
from tidegate_controlplane.app import Services, build_app
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.errors import Unavailable
from tidegate_controlplane.gateway.metrics import Metrics
from tidegate_controlplane.gateway.watch import Watch
from tidegate_controlplane.offers.service import Offers
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.migrate import migrate
from tidegate_controlplane.store.sqlite import SqliteDatabase


@dataclass
class PlayedAws:
    """Sells one machine in every region, at a price that is set here; `away` refuses."""

    usd_per_hour: float = 1.0
    away: set[str] = field(default_factory=set)

    def ask(self, region: str, now: datetime) -> list[Offer]:
        if region in self.away:
            raise Unavailable("AWS is away", code="prices_unavailable")
        return [
            Offer(
                **dict(bundled_hardware()["g6.xlarge"]),
                covers=Covers.SAGEMAKER,
                region=region,
                instance_type="ml.g6.xlarge",
                usd_per_hour=self.usd_per_hour,
                source="AWS Price List API, AmazonSageMaker",
                as_of=now.date(),
            )
        ]


@pytest.fixture
def played() -> PlayedAws:
    return PlayedAws()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = SqliteDatabase(tmp_path / "tidegate.db")
    migrate(opened.writer)
    yield opened
    opened.close()


@pytest.fixture
def offers(database: Database, played: PlayedAws) -> Offers:
    return Offers(database, SystemClock(), played.ask)


@pytest.fixture
async def http(
    tmp_path: Path, database: Database, offers: Offers
) -> AsyncIterator[httpx.AsyncClient]:
    clock, settings = SystemClock(), Settings(data_dir=tmp_path)
    keys = KeyService(database, load_pepper(settings.pepper_path), clock)
    names = (
        "endpoints",
        "catalog",
        "usage",
        "forwarder",
        "profiler",
        "deployments",
        "files",
        "batches",
    )
    services = Services(
        settings=settings,
        clock=clock,
        database=database,
        keys=keys,
        quotas=Quotas(clock),
        watch=Watch(Metrics(), clock),
        offers=offers,
        ready=asyncio.Event(),
        **dict.fromkeys((*names, "invocations", "webhooks", "rotation")),
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=build_app(services, HANDLERS)),
        base_url="http://platform",
        headers={"authorization": f"Bearer {await keys.ensure_first()}"},
    ) as client:
        yield client
