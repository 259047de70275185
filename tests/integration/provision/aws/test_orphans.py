"""Stacks whose deployment the database does not know, as after a restore of an older backup."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
import yaml
from sqlmodel import Session
from tests.integration.provision.aws.conftest import SETTINGS, Account, AwsAccount

from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.provision.aws.__main__ import main
from tidegate_controlplane.store.sqlite import SqliteDatabase
from tidegate_controlplane.store.tables import Deployment, Project


@pytest.fixture
def arguments(tmp_path: Path, migrated: Path) -> list[str]:
    """Of the command, for a data directory with an empty database."""
    data, config = tmp_path / "data", tmp_path / "tidegate.yaml"
    data.mkdir()
    shutil.copy(migrated, data / "tidegate.db")
    config.write_text(yaml.safe_dump({"aws": SETTINGS.model_dump(mode="json")}))
    return ["--data", str(data), "--config", str(config)]


def declare(arguments: list[str], deployment_id: str) -> None:
    database, now = SqliteDatabase(Path(arguments[1]) / "tidegate.db"), SystemClock().now()
    with Session(database.writer) as session, session.begin():
        session.add(Project(id="prj_1", name="p", created_at=now))
        session.flush()
        session.add(
            Deployment(
                id=deployment_id,
                project_id="prj_1",
                name="smol",
                mode="serverless",
                spec={},
                plan={},
                revision_id="rev_1",
                conditions=[],
                phase="ready",
                created_at=now,
                updated_at=now,
            )
        )
    database.close()


async def test_a_stack_without_a_deployment_is_named_and_then_destroyed(
    account: Account, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    place = AwsAccount(await account.open(), account)
    await place.served()
    await place.provisioner.close()

    async def run(*more: str) -> int:
        return await asyncio.to_thread(main, [*arguments, *more], lambda: account.pulumi)

    assert await run() == 1
    assert "stack tidegate-dep-1 belongs to no deployment" in capsys.readouterr().out
    assert account.cloud.kept
    assert await run("--destroy") == 0
    assert "stack tidegate-dep-1 is gone" in capsys.readouterr().out
    assert (account.cloud.kept, account.sagemaker.components) == ({}, {})
    assert await run() == 0


async def test_the_stack_of_a_deployment_is_left_alone(
    account: Account, arguments: list[str]
) -> None:
    declare(arguments, "dep_1")
    place = AwsAccount(await account.open(), account)
    await place.served()
    ran = await asyncio.to_thread(main, [*arguments, "--destroy"], lambda: account.pulumi)
    assert ran == 0
    assert account.cloud.kept


def test_a_directory_without_a_database_makes_no_stack_an_orphan(
    account: Account, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments[1] = str(tmp_path / "another")
    assert main([*arguments, "--destroy"], lambda: account.pulumi) == 2
    assert "there is no database in it" in capsys.readouterr().err
