"""The schema: migrations and tables say the same, there and back."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from tidegate_controlplane.errors import StartError
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.migrate import downgrade, migrate
from tidegate_controlplane.store.tables import Project

DEFINITION = {
    "sqlite": "SELECT sql FROM sqlite_master WHERE name = :name",
    "postgresql": "SELECT indexdef FROM pg_indexes WHERE indexname = :name",
}


def table_names(database: Database) -> set[str]:
    return set(inspect(database.writer).get_table_names()) - {"alembic_version"}


def test_migrations_make_exactly_the_declared_tables(database: Database) -> None:
    with database.writer.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Project.metadata) == []
    assert table_names(database) == set(Project.metadata.tables)


def test_indexes_over_a_part_of_a_table_say_the_same_condition(database: Database) -> None:
    partial = [
        (index.name, str(index.dialect_options["sqlite"]["where"]))
        for table in Project.metadata.tables.values()
        for index in table.indexes
        if index.dialect_options["sqlite"]["where"] is not None
    ]
    assert len(partial) >= 4
    with database.writer.connect() as connection:
        for name, where in partial:
            query = text(DEFINITION[connection.dialect.name])
            statement = connection.execute(query, {"name": name}).scalar_one()
            said = statement.partition(" WHERE ")[2].replace("::text", "")
            assert said.replace("(", "").replace(")", "") == where


def test_migrating_again_changes_nothing(database: Database) -> None:
    migrate(database.writer)
    assert table_names(database) == set(Project.metadata.tables)


def test_a_database_goes_down_and_up_again(database: Database) -> None:
    downgrade(database.writer, "base")
    assert table_names(database) == set()
    migrate(database.writer)
    assert table_names(database) == set(Project.metadata.tables)


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(database: Database) -> None:
    with database.writer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StartError, match=r"schema '9999'.*upgrade tidegate"):
        migrate(database.writer)
    with database.writer.connect() as connection:
        found = connection.execute(text("SELECT version_num FROM alembic_version"))
        assert found.scalar_one() == "9999"


def test_a_migration_that_fails_leaves_nothing_half_made(empty: Database) -> None:
    with empty.writer.begin() as connection:
        connection.execute(text("CREATE TABLE usage_record (x INTEGER)"))
    with pytest.raises(Exception, match=r'usage_record"? already exists'):
        migrate(empty.writer)
    assert table_names(empty) == {"usage_record"}


def test_batches_and_their_lines_survive_the_change_of_the_batch_table(database: Database) -> None:
    with database.writer.begin() as connection:
        for statement in ROWS_OF_A_BATCH:
            connection.execute(text(statement))
    for _ in range(2):
        downgrade(database.writer, "0003")
        migrate(database.writer)
    with database.writer.connect() as connection:
        assert connection.execute(text("SELECT id, input_file_id FROM batch")).all() == [("b", "f")]
        assert connection.execute(text("SELECT batch_id FROM invocation")).all() == [("b",)]
        if connection.dialect.name == "sqlite":
            assert connection.execute(text("PRAGMA foreign_keys")).scalar_one() == 1


ROWS_OF_A_BATCH = (
    "INSERT INTO project (id, name, created_at) VALUES ('p', 'p', '2026-01-01')",
    "INSERT INTO file (id, project_id, filename, purpose, bytes, sha256, object_key, created_at) "
    "VALUES ('f', 'p', 'f', 'batch', 1, 'x', 'k', '2026-01-01')",
    "INSERT INTO batch (id, project_id, status, endpoint, input_file_id, completion_window, total, "
    "version, created_at) VALUES ('b', 'p', 'completed', '/v1', 'f', '24h', 1, 1, '2026-01-01')",
    "INSERT INTO invocation (id, project_id, model, endpoint, status, priority, attempt, "
    "max_attempts, timeout_s, request_sha256, prompt_tokens, completion_tokens, cached_tokens, "
    "replica_s, batch_id, line_no, lease_epoch, lease_beat, cancel_requested, created_at, "
    "available_at) VALUES ('i', 'p', 'm', '/v1', 'succeeded', 10, 1, 3, 1, 'x', 1, 1, 0, 0, 'b', "
    "1, 0, 0, false, '2026-01-01', '2026-01-01')",
)
