"""Bring a database to this version's tables."""

from __future__ import annotations

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from tidegate_controlplane.errors import StartError


def migrate(engine: Engine) -> None:
    """Upgrade to this version's tables, in one transaction.

    Raises StartError when the database was written by a newer Tidegate than this one.
    """
    config = _config()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with engine.begin() as connection:
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
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def _config() -> Config:
    config = Config()
    config.set_main_option(
        "script_location", str(files("tidegate_controlplane.store") / "migrations")
    )
    return config
