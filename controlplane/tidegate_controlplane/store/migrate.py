"""Bring a database to this version's tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from tidegate_controlplane.errors import StartError

LOCK_KEY = 0x7469646567617465
"""Of the advisory lock that migrations hold: the name of this project in ASCII."""


def migrate(engine: Engine) -> None:
    """Upgrade to this version's tables, in one transaction.

    Raises StartError when the database was written by a newer Tidegate than this one.
    """
    with schema_transaction(engine) as connection:
        current = schema_revision(connection)
        if current is not None and not is_known(current):
            raise StartError(
                f"the database is at schema {current!r}, which this version does not know; "
                "upgrade tidegate, or start with another --data directory"
            )
        upgrade(connection)


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Upgrade to `revision` in the connection's transaction."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Go back to an earlier `revision` (`base`: no tables), in one transaction."""
    config = _config()
    with schema_transaction(engine) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def schema_revision(connection: Connection) -> str | None:
    """Which tables the database has; None when it has none."""
    return MigrationContext.configure(connection).get_current_revision()


def is_known(revision: str) -> bool:
    """Whether this version can bring tables of `revision` to its own."""
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return revision in {script.revision for script in scripts}


@contextmanager
def schema_transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction, in which SQLite lets a table be made anew while others refer to it.

    Source: "Making Other Kinds Of Table Schema Changes" (SQLite, ALTER TABLE): references are not
    watched meanwhile, and all of them are checked before the commit.
    """
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection:
            _alone(connection)
            yield connection
        return
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute("PRAGMA foreign_keys=OFF")  # says nothing inside a transaction
        try:
            with connection.begin():
                yield connection
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                if broken:
                    raise StartError(f"the migration would leave {len(broken)} rows without owner")
        finally:
            driver.execute("PRAGMA foreign_keys=ON")


def _alone(connection: Connection) -> None:
    """Until the transaction ends no other control plane migrates: for PostgreSQL."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SET LOCAL lock_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})


def _config() -> Config:
    config = Config()
    config.set_main_option(
        "script_location", str(files("tidegate_controlplane.store") / "migrations")
    )
    return config
