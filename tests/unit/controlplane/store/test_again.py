"""A unit whose transaction is lost runs again, and what it added is there."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from tidegate_controlplane.store.migrate import migrate
from tidegate_controlplane.store.postgres import PostgresDatabase
from tidegate_controlplane.store.sqlite import SqliteDatabase
from tidegate_controlplane.store.tables import Project


class Conflict(Exception):
    sqlstate = "40001"


def fail_next_commit(engine):
    """The next commit fails, as one does whose fsync fails."""
    failed = []

    @event.listens_for(engine, "commit")
    def commit(connection):
        if not failed:
            failed.append(connection)
            connection.exec_driver_sql("ROLLBACK")
            raise OperationalError("COMMIT", {}, Conflict("could not serialize access"))


def project(number):
    return Project(id=f"prj_{number}", name=f"p{number}", created_at=datetime.now(UTC))


async def test_units_whose_shared_commit_failed_insert_their_rows_when_they_run_again(tmp_path):
    database = SqliteDatabase(tmp_path / "db")
    migrate(database.writer)
    rows = [project(number) for number in range(3)]
    began, free = threading.Event(), threading.Event()

    def hold(_session):
        began.set()
        assert free.wait(60)

    held = asyncio.ensure_future(database.write(hold))
    await asyncio.to_thread(began.wait, 60)
    fail_next_commit(database.writer)  # the unit that is held has nothing to commit
    gathered = [asyncio.create_task(database.write(lambda s, row=row: s.add(row))) for row in rows]
    await asyncio.sleep(0)
    free.set()
    await asyncio.gather(held, *gathered)
    found = await database.read(lambda s: [s.get(Project, row.id) for row in rows])
    database.close()
    assert all(found)


async def test_a_unit_that_lost_its_commit_to_a_conflict_inserts_its_row_when_it_runs_again(
    postgres,
):
    database = PostgresDatabase(postgres.database())
    fail_next_commit(database.writer)
    row = project(1)
    await database.write(lambda session: session.add(row))
    found = await database.read(lambda session: session.get(Project, row.id))
    database.close()
    assert found is not None
