"""Replicas on a real Ray cluster: what every provisioner does, and what a cluster adds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.integration.provision.conformance import Conformance
from tests.integration.provision.ray_cluster import Machines, RayPlace, machines, opened

pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with machines(tmp_path_factory.mktemp("cluster"), "a", "b") as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(cluster: Machines) -> AsyncIterator[RayPlace]:
    made = RayPlace(await opened(cluster), cluster)
    yield made
    await made.provisioner.close()


@pytest_asyncio.fixture(loop_scope="module")
async def place(shared: RayPlace) -> AsyncIterator[RayPlace]:
    yield shared
    await shared.clean()


class TestRay(Conformance):
    """What every provisioner does."""

    place_type = RayPlace
