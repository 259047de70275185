"""Rows of deployments and replicas: compare-and-swap, what lives, what is recent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from tidegate.protocol.resources import ModelFacts
from tidegate_controlplane.domain.states import ImpossibleTransition
from tidegate_controlplane.store import deployments as rows
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.tables import DEFAULT_PROJECT, Deployment, Replica, Revision

T = TypeVar("T")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FACTS = ModelFacts(
    format="gguf",
    architecture="llama",
    digest="sha256:a",
    parameters=1,
    weights_bytes=1,
    context_tokens=1,
    layers=1,
    kv_heads=1,
    head_dim=1,
    vocabulary=1,
)


@pytest.fixture
async def deployment(database: Database) -> Deployment:
    """`smol`, living, with one revision."""
    return await database.write(lambda session: declared(session, "dep_1", "smol"))


def declared(session: Session, key: str, name: str, **values: Any) -> Deployment:
    given = {"mode": "serverless", "phase": "pending"} | values
    version = rows.model_version(session, DEFAULT_PROJECT, "/m", "generate", FACTS, None, NOW)
    row = Deployment(
        id=key,
        project_id=DEFAULT_PROJECT,
        name=name,
        spec={},
        plan={},
        revision_id=f"rev_{key}",
        conditions=[],
        created_at=NOW,
        updated_at=NOW,
        **given,
    )
    session.add(row)
    session.flush()
    session.add(
        Revision(
            id=f"rev_{key}",
            deployment_id=key,
            number=1,
            generation=1,
            fingerprint="f",
            model_version_id=version.id,
            spec={},
            plan={},
            created_at=NOW,
        )
    )
    session.flush()
    return row


def replica(key: str, phase: str = "requested", **values: Any) -> Replica:
    return Replica(
        id=key,
        deployment_id="dep_1",
        revision_id="rev_dep_1",
        phase=phase,
        created_at=NOW,
        updated_at=NOW,
        **values,
    )


async def change(
    database: Database, row: Any, using: Callable[..., None] = rows.change_deployment, **values: Any
) -> None:
    await database.write(lambda session: using(session, row, NOW, **values))


async def test_a_change_raises_the_version_and_is_seen_on_the_row(
    database: Database, deployment: Deployment
) -> None:
    await change(database, deployment, phase="idle")
    assert (deployment.phase, deployment.version) == ("idle", 2)
    stored = await database.read(lambda s: s.get_one(Deployment, "dep_1"))
    assert (stored.phase, stored.version) == ("idle", 2)


async def test_a_writer_that_read_an_older_row_changes_nothing(
    database: Database, deployment: Deployment
) -> None:
    stale = await database.read(lambda s: s.get_one(Deployment, "dep_1"))
    await change(database, deployment, message="first")

    def both(session: Session) -> None:
        session.add(replica("rep_1"))
        rows.change_deployment(session, stale, NOW, message="second")

    with pytest.raises(rows.StaleRow, match="dep_1 is no longer at version 1"):
        await database.write(both)
    stored = await database.read(lambda s: s.get_one(Deployment, "dep_1"))
    assert (stored.message, stored.version) == ("first", 2)
    assert await database.read(rows.unfinished_replicas) == []


async def test_a_change_that_is_rolled_back_is_taken_back_from_the_row_in_memory_too(
    database: Database, deployment: Deployment
) -> None:
    def unit(session: Session) -> None:
        rows.change_deployment(session, deployment, NOW, message="first")
        rows.change_deployment(session, deployment, NOW, message="second")
        assert deployment.version == 3
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        await database.write(unit)
    assert (deployment.message, deployment.version) == ("", 1)
    await change(database, deployment, message="third")


async def test_a_stale_replica_is_refused_too(database: Database, deployment: Deployment) -> None:
    await database.write(lambda s: s.add(replica("rep_1")))
    one = await database.read(lambda s: s.get_one(Replica, "rep_1"))
    other = await database.read(lambda s: s.get_one(Replica, "rep_1"))
    await change(database, one, rows.change_replica, phase="starting")
    with pytest.raises(rows.StaleRow):
        await change(database, other, rows.change_replica, phase="failed")


async def test_a_phase_that_cannot_follow_is_refused(
    database: Database, deployment: Deployment
) -> None:
    with pytest.raises(ImpossibleTransition):
        await change(database, deployment, phase="deleted")
    await database.write(lambda s: s.add(replica("rep_1", "failed")))
    row = await database.read(lambda s: s.get_one(Replica, "rep_1"))
    with pytest.raises(ImpossibleTransition):
        await change(database, row, rows.change_replica, phase="ready")


async def test_a_name_is_taken_while_its_deployment_lives_and_free_afterwards(
    database: Database, deployment: Deployment
) -> None:
    with pytest.raises(IntegrityError):
        await database.write(lambda s: declared(s, "dep_2", "smol"))
    await change(database, deployment, deleted_at=NOW)
    await database.write(lambda s: declared(s, "dep_2", "smol"))
    found = await database.read(lambda s: rows.living(s, DEFAULT_PROJECT, "smol"))
    assert found is not None
    assert found.id == "dep_2"
    assert [row.id for row in await database.read(rows.all_living)] == ["dep_2"]


async def test_another_projects_deployment_is_not_found(
    database: Database, deployment: Deployment
) -> None:
    assert await database.read(lambda s: rows.living(s, "prj_other", "smol")) is None


async def test_the_same_files_are_one_version_of_one_model(database: Database) -> None:
    def version(session: Session, digest: str, task: str = "generate") -> tuple[str, str]:
        facts = FACTS.model_copy(update={"digest": digest})
        found = rows.model_version(session, DEFAULT_PROJECT, "/m", task, facts, None, NOW)
        return found.model_id, found.id

    def several(session: Session) -> list[tuple[str, str]]:
        return [
            version(session, "sha256:a"),
            version(session, "sha256:a"),
            version(session, "sha256:b"),
            version(session, "sha256:a", "embed"),
        ]

    first, again, other, embed = await database.write(several)
    assert first == again
    assert other[0] == first[0]
    assert other[1] != first[1]
    assert embed[0] != first[0]


async def test_recent_replicas_are_the_newest_and_every_one_that_still_runs(
    database: Database, deployment: Deployment
) -> None:
    def fill(session: Session) -> None:
        session.add(replica("rep_00", "ready"))
        session.add_all([replica(f"rep_{n:02}", "failed") for n in range(1, 10)])

    await database.write(fill)
    found = await database.read(lambda s: rows.recent_replicas(s, "dep_1", limit=3))
    assert [row.id for row in found] == ["rep_00", "rep_07", "rep_08", "rep_09"]


async def test_the_median_cold_start_is_that_of_the_same_files(
    database: Database, deployment: Deployment
) -> None:
    def fill(session: Session) -> None:
        seconds = [9.0, 1.0, 2.0, None]
        session.add_all([replica(f"rep_{n}", cold_start_s=s) for n, s in enumerate(seconds)])

    assert await database.read(lambda s: rows.median_cold_start_s(s, "sha256:a")) is None
    await database.write(fill)
    assert await database.read(lambda s: rows.median_cold_start_s(s, "sha256:a")) == 2.0
    assert await database.read(lambda s: rows.median_cold_start_s(s, "sha256:b")) is None


async def test_a_cold_start_with_a_draft_model_counts_for_that_pair_alone(
    database: Database, deployment: Deployment
) -> None:
    def fill(session: Session) -> None:
        plain = session.get_one(Revision, "rev_dep_1").model_dump()
        revisions = {1: "rev_dep_1", 2: "rev_2", 3: "rev_3"}
        beside = {**plain, "id": "rev_2", "number": 2, "plan": {"draft": {"digest": "sha256:d"}}}
        alone = {**plain, "id": "rev_3", "number": 3, "plan": {"draft": None}}
        session.add_all([Revision.model_validate(each) for each in (beside, alone)])
        session.flush()
        for number, seconds in ((1, 2.0), (2, 7.0), (3, 4.0)):
            one = replica(f"rep_{number}", cold_start_s=seconds)
            one.revision_id = revisions[number]
            session.add(one)

    await database.write(fill)
    read = rows.median_cold_start_s
    assert await database.read(lambda s: read(s, "sha256:a")) == 4.0
    assert await database.read(lambda s: read(s, "sha256:a", "sha256:d")) == 7.0
    assert await database.read(lambda s: read(s, "sha256:a", "sha256:e")) is None


async def test_events_are_read_in_order_after_a_cursor(
    database: Database, deployment: Deployment
) -> None:
    def several(session: Session) -> None:
        for number in range(5):
            rows.add_event(session, deployment, NOW, "Said", str(number))

    await database.write(several)
    first = await database.read(lambda s: rows.events_page(s, "dep_1", 0, 2))
    assert [event.message for event in first] == ["0", "1"]
    cursor = first[-1].seq
    assert cursor is not None
    rest = await database.read(lambda s: rows.events_page(s, "dep_1", cursor, 9))
    assert [event.message for event in rest] == ["2", "3", "4"]


def test_ids_made_in_a_burst_sort_by_creation() -> None:
    ids = [new_id("rep") for _ in range(1000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    assert ids[0].startswith("rep_0")
