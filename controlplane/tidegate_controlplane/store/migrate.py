"""Bring a database to this version's tables."""

from __future__ import annotations

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
    with engine.begin() as connection:
        alone(connection)
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
    with engine.begin() as connection:
        alone(connection)
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def schema_revision(connection: Connection) -> str | None:
    """Which tables the database has; None when it has none."""
    return MigrationContext.configure(connection).get_current_revision()


def is_known(revision: str) -> bool:
    """Whether this version can bring tables of `revision` to its own."""
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return revision in {script.revision for script in scripts}


def alone(connection: Connection) -> None:
    """Until the transaction ends no other control plane migrates; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})


def _config() -> Config:
    config = Config()
    config.set_main_option(
        "script_location", str(files("tidegate_controlplane.store") / "migrations")
    )
    return config
