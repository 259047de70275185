"""A node of a Ray cluster is killed under 50 streams, through the whole control plane."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.gateway.conftest import serve
from tests.integration.provision.ray_cluster import Machines, machines, orders
from tests.tiny_model import write_tiny_model

from tidegate.protocol.resources import ApiKeyRequest, KeyRole
from tidegate.spec import DeploymentSpec
from tidegate_controlplane.app import Services, build_app
from tidegate_controlplane.process import running
from tidegate_controlplane.provision import places
from tidegate_controlplane.provision.ray.provisioner import RayProvisioner
from tidegate_controlplane.provision.surroundings import Surroundings
from tidegate_controlplane.routes import HANDLERS
from tidegate_controlplane.settings import RaySettings, ReconcileSettings, Settings
from tidegate_controlplane.store.tables import DEFAULT_PROJECT

pytest.importorskip("ray", reason="the extra ray is not installed")
STREAMS = 50
PIECES = 30
WITHIN_S = 60.0
WIDE = ApiKeyRequest(
    name="load", role=KeyRole.ADMIN, requests_per_minute=None, tokens_per_minute=None
)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Machines]:
    with machines(tmp_path, "a", "b") as made:
        yield made


@dataclass
class Load:
    """What became of streams: whole, cut with a well-formed error, or at fault otherwise."""

    whole: int = 0
    cut: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    async def stream(self, client: httpx.AsyncClient) -> None:
        body = {
            "model": "far",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "max_tokens": PIECES,
        }
        try:
            answer = await client.post("/v1/chat/completions", json=body)
        except httpx.HTTPError as error:
            self.faults.append(repr(error))
            return
        events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        if answer.status_code == 200 and events and events[-1] == "[DONE]":
            words = sum("word" in event for event in events)
            self.whole += 1
            if words != PIECES:
                self.faults.append(f"a fake end after {words} words")
        elif answer.status_code == 200 and events and "error" in (last := json.loads(events[-1])):
            self.cut.append(last["error"]["message"])
        else:
            self.faults.append(f"{answer.status_code} {answer.text[-300:]}")

    async def go_on(self, client: httpx.AsyncClient, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.stream(client)


@contextlib.asynccontextmanager
async def platform(made: Machines, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Services]:
    """The control plane's rooms over played replicas on the cluster's nodes."""

    async def open_played(around: Surroundings) -> RayProvisioner:
        chosen = around.settings.ray
        assert chosen is not None
        place = RayProvisioner(chosen, orders(made), around.clock, around.changed, around.token_of)
        await place.open()
        return place

    monkeypatch.setitem(places.OPENERS, "ray", open_played)
    settings = Settings(
        data_dir=made.root / "data",
        reconcile=ReconcileSettings(tick_s=0.2, busy_tick_s=0.05),
        ray=RaySettings(address=made.cluster.address),
    )
    settings.data_dir.mkdir()
    async with running(settings) as (services, _):
        await services.keys.ensure_first()
        yield services


async def phases(services: Services) -> dict[str, Any]:
    found = await services.deployments.read.replicas(DEFAULT_PROJECT, "far", None, 50)
    return {each.id: each for each in found.data}


async def until_ready(services: Services, number: int) -> list[str]:
    async with asyncio.timeout(WITHIN_S):
        while True:
            ready = [key for key, one in (await phases(services)).items() if one.phase == "ready"]
            if len(ready) == number:
                return ready
            await asyncio.sleep(0.02)


@pytest.mark.soak
async def test_a_node_that_is_killed_fails_no_request_but_the_streams_on_it(
    cluster: Machines, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    model = write_tiny_model(cluster.root / "model")
    spec = {
        "name": "far",
        "model": str(model),
        "mode": "realtime",
        "hardware": {"provisioner": "ray", "cpu": 1},
        "runtime": {"max_sequences": 64},
        "scaling": {"min_replicas": 2},
    }
    load = Load()
    async with (
        platform(cluster, monkeypatch) as services,
        serve(build_app(services, HANDLERS)) as url,
    ):
        await services.deployments.apply(DEFAULT_PROJECT, DeploymentSpec.model_validate(spec))
        before = await until_ready(services, 2)
        homes = {key: cluster.home(key) for key in before}
        assert set(homes.values()) == {"a", "b"}
        key = (await services.keys.create(DEFAULT_PROJECT, WIDE)).key
        headers = {"authorization": f"Bearer {key}"}
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=url, headers=headers, timeout=WITHIN_S, trust_env=False, limits=limits
        ) as client:
            stop = asyncio.Event()
            callers = [asyncio.create_task(load.go_on(client, stop)) for _ in range(STREAMS)]
            await asyncio.sleep(1.0)
            deployment = (await services.deployments.read.get(DEFAULT_PROJECT, "far")).id
            lost = next(key for key, home in homes.items() if home == "a")
            running_there = services.endpoints.in_flight_on(deployment, lost)
            killed_at = time.monotonic()
            cluster.lose("a")
            while (await phases(services))[lost].phase != "failed":
                await asyncio.sleep(0.01)
            noticed_s = time.monotonic() - killed_at
            assert (await phases(services))[lost].reason == "NodeLost"
            await until_ready(services, 2)
            replaced_s = time.monotonic() - killed_at
            await asyncio.sleep(1.0)
            stop.set()
            await asyncio.gather(*callers)
    told = (
        f"noticed after {noticed_s:.2f} s, replaced after {replaced_s:.2f} s; "
        f"{running_there} streams on the node, {len(load.cut)} cut, {load.whole} whole"
    )
    record_property("figures", told)
    print(told)
    assert load.faults == []
    assert 0 < len(load.cut) <= STREAMS
    assert load.whole > STREAMS
