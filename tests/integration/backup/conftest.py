"""A data directory as a platform leaves it: rows of every kind, objects, secrets."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session, select

from tidegate_controlplane.access.pepper import load_pepper
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.objects.directory import DirectoryStore
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.open import open_database
from tidegate_controlplane.store.tables import (
    ApiKey,
    Deployment,
    Event,
    File,
    Invocation,
    Model,
    ModelVersion,
    Project,
    Replica,
    Revision,
    UsageRecord,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LARGE = b"a large answer" * 1000


def rows() -> list[Any]:
    """Parents first."""
    at = {"created_at": NOW, "updated_at": NOW}
    running = {"status": "running", "lease_owner": "wrk_1", "lease_epoch": 3, "attempt": 2}
    return [
        Project(id="prj_1", name="one", created_at=NOW),
        ApiKey(
            id="key_1",
            project_id="prj_1",
            name="k",
            role="admin",
            digest="d",
            created_at=NOW,
            tokens_per_minute=7,
        ),
        Model(id="mdl_1", project_id="prj_1", source="/m", task="generate", created_at=NOW),
        ModelVersion(
            id="ver_1", model_id="mdl_1", digest="d", facts={"a": [1, None]}, created_at=NOW
        ),
        Deployment(
            id="dep_1",
            project_id="prj_1",
            name="m",
            mode="async",
            spec={"name": "m", "é": "\u0000"},
            plan={},
            revision_id="rev_1",
            phase="ready",
            conditions=[{"type": "Ready"}],
            **at,
        ),
        Revision(
            id="rev_1",
            deployment_id="dep_1",
            number=1,
            generation=1,
            fingerprint="f",
            model_version_id="ver_1",
            spec={},
            plan={},
            created_at=NOW,
        ),
        Replica(
            id="rep_1",
            deployment_id="dep_1",
            revision_id="rev_1",
            phase="ready",
            pid=1,
            process_start=1,
            port=80,
            cold_start_s=1.5,
            ready_at=NOW,
            **at,
        ),
        *(
            Event(
                project_id="prj_1",
                deployment_id="dep_1",
                object="o",
                severity="info",
                reason="r",
                message=f"{n}",
                time=NOW,
            )
            for n in range(3)
        ),
        File(
            id="file_1",
            project_id="prj_1",
            filename="f",
            purpose="batch",
            bytes=3,
            sha256="s",
            object_key="prj_1/files/file_1",
            created_at=NOW,
        ),
        invocation("inv_inline", request=b"\x00\xff{}", status="queued"),
        invocation("inv_running", request=b"{}", **running),
        invocation(
            "inv_done",
            request_key="prj_1/requests/inv_done",
            result_key="prj_1/results/inv_done/1",
            status="succeeded",
            finished_at=NOW,
            error=None,
        ),
        UsageRecord(
            project_id="prj_1", deployment="m", mode="async", key_id="key_1", hour=NOW, requests=2
        ),
    ]


OBJECTS = {
    "prj_1/files/file_1": b"abc",
    "prj_1/requests/inv_done": b"asked",
    "prj_1/results/inv_done/1": LARGE,
}


def invocation(key: str, **values: Any) -> Invocation:
    return Invocation(
        id=key,
        project_id="prj_1",
        deployment_id="dep_1",
        model="m",
        endpoint="/v1/completions",
        timeout_s=60.0,
        request_sha256="s",
        created_at=NOW,
        available_at=NOW,
        **values,
    )


@dataclass
class Place:
    """Where a platform is, or will be."""

    settings: Settings

    def open(self) -> Database:
        return open_database(self.settings.database, self.settings.database_path)

    async def rows_of(self, table: Any) -> list[dict[str, Any]]:
        """Every row as a dictionary, sorted."""
        database = self.open()
        try:
            found = await database.read(lambda session: list(session.exec(select(table))))
        finally:
            database.close()
        said = [row.model_dump() for row in found]
        return sorted(said, key=str)


@pytest.fixture
def clock() -> SystemClock:
    return SystemClock()


@pytest.fixture
def engines() -> tuple[str, str]:
    """Of the platform that is backed up, and of the one that is restored."""
    return "sqlite", "sqlite"


@pytest.fixture
def database_of(request: pytest.FixtureRequest) -> Callable[[str, str], str | None]:
    """A database of an engine, as settings name it; made from a template of the server."""

    def make(engine: str, template: str) -> str | None:
        if engine == "sqlite":
            return None
        return request.getfixturevalue("postgres").database(template)

    return make


@pytest.fixture
def empty(tmp_path: Path, engines: tuple[str, str], database_of: Any) -> Place:
    database = database_of(engines[1], "template1")
    return Place(Settings(data_dir=tmp_path / "empty", database=database))


@pytest.fixture
async def full(tmp_path: Path, engines: tuple[str, str], database_of: Any, migrated: Path) -> Place:
    database = database_of(engines[0], "migrated")
    place = Place(Settings(data_dir=tmp_path / "full", database=database))
    place.settings.data_dir.mkdir()
    shutil.copy(migrated, place.settings.database_path)
    await fill(place)
    return place


async def fill(place: Place) -> None:
    load_pepper(place.settings.pepper_path)
    database = place.open()
    with Session(database.writer) as session, session.begin():
        for row in rows():
            session.add(row)
            session.flush()
    database.close()
    store = DirectoryStore(place.settings.objects_dir)
    for key, content in OBJECTS.items():
        await store.put(key, [content])
