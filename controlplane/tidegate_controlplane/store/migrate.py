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
    config = _config()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.begin() as connection:
        _alone(connection)
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in known:
            raise StartError(
                f"the database is at schema {current!r}, which this version does not know; "
                "upgrade tidegate, or start with another --data directory"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def downgrade(engine: Engine, revision: str) -> None:
    """Go back to an earlier `revision` (`base`: no tables), in one transaction."""
    config = _config()
    with engine.begin() as connection:
        _alone(connection)
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def _alone(connection: Connection) -> None:
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
