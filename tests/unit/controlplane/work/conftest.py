"""A catalog with one deployment of each kind."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tidegate.spec import Mode, Task
from tidegate_controlplane.gateway.catalog import Catalog, Served

PROJECT = "prj_1"


@pytest.fixture
def catalog():
    catalog = Catalog()
    for name, mode, task in [
        ("live", Mode.REALTIME, Task.GENERATE),
        ("cold", Mode.SERVERLESS, Task.GENERATE),
        ("queue", Mode.ASYNC, Task.GENERATE),
        ("job", Mode.BATCH, Task.GENERATE),
        ("vectors", Mode.REALTIME, Task.EMBED),
    ]:
        catalog.put(Served(f"dep_{name}", PROJECT, name, mode, task, datetime.now(UTC)))
    return catalog
