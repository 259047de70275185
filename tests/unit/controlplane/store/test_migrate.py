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
