"""Backup and restore: what comes back, and what is refused."""

from __future__ import annotations

import asyncio
import json
import signal
import stat
import subprocess
import sys
import tarfile
import time

import pytest
from sqlalchemy import inspect, text
from sqlmodel import Session, SQLModel
from tests.integration.backup.conftest import OBJECTS, invocation
from typer.testing import CliRunner

from tidegate.cli.app import app
from tidegate_controlplane.backup import restore as restoring
from tidegate_controlplane.backup import rows as backup_rows
from tidegate_controlplane.backup.archive import members
from tidegate_controlplane.backup.restore import restore
from tidegate_controlplane.backup.save import save
from tidegate_controlplane.data_dir import check_whole, owned
from tidegate_controlplane.errors import BackupError, StartError
from tidegate_controlplane.objects.directory import DirectoryStore
from tidegate_controlplane.store.migrate import downgrade
from tidegate_controlplane.store.tables import Event, Invocation, Replica

CHANGED = {"invocation", "replica", "event", *backup_rows.OF_PROCESSES}
"""Tables in which a restore does more than to copy."""


@pytest.fixture
async def archive(full, clock, tmp_path):
    path = tmp_path / "backup.tar"
    await save(full.settings, path, clock, with_s3=False)
    return path


# --- there and back -------------------------------------------------------------------------------


ROUTES = [(a, b) for a in ("sqlite", "postgres") for b in ("sqlite", "postgres")]
on_every_route = pytest.mark.parametrize("engines", ROUTES, ids="-to-".join)
on_both_engines = pytest.mark.parametrize("engines", [ROUTES[0], ROUTES[3]], ids="-to-".join)


@on_every_route
async def test_every_row_object_and_secret_comes_back(full, empty, archive, clock):
    await restore(empty.settings, archive, clock)
    for table in models():
        if table.__tablename__ not in CHANGED:
            assert await empty.rows_of(table) == await full.rows_of(table), table
    store = DirectoryStore(empty.settings.objects_dir)
    assert {key: await store.read(key) for key in OBJECTS} == OBJECTS
    assert empty.settings.pepper_path.read_bytes() == full.settings.pepper_path.read_bytes()


@on_both_engines
async def test_work_that_ran_is_queued_again_and_its_run_is_no_attempt(empty, archive, clock):
    await restore(empty.settings, archive, clock)
    found = {row["id"]: row for row in await empty.rows_of(Invocation)}
    assert found["inv_running"]["status"] == "queued"
    assert (found["inv_running"]["attempt"], found["inv_running"]["lease_owner"]) == (1, None)
    assert found["inv_inline"]["request"] == b"\x00\xff{}"
    assert found["inv_done"]["status"] == "succeeded"
    assert found["inv_done"]["result_key"] == "prj_1/results/inv_done/1"


async def test_replicas_of_the_former_platform_have_ended_so_that_no_process_is_swept(
    empty, archive, clock
):
    await restore(empty.settings, archive, clock)
    (replica,) = await empty.rows_of(Replica)
    assert (replica["phase"], replica["reason"]) == ("terminated", "ControlPlaneRestarted")


@on_both_engines
async def test_numbers_that_the_engine_gives_go_on_after_those_restored(empty, archive, clock):
    await restore(empty.settings, archive, clock)
    numbers = [row["seq"] for row in await empty.rows_of(Event)]
    assert sorted(numbers) == [1, 2, 3, 4], "three restored, one of the replica that ended"


@on_both_engines
async def test_an_archive_of_an_older_schema_is_restored_and_upgraded(full, empty, clock, tmp_path):
    database = full.open()
    downgrade(database.writer, "0003")
    database.close()
    summary = await save(full.settings, tmp_path / "old.tar", clock, with_s3=False)
    assert summary.schema_revision == "0003"
    await restore(empty.settings, tmp_path / "old.tar", clock)
    assert len(await empty.rows_of(Invocation)) == 3


@on_both_engines
async def test_a_backup_is_one_moment_although_the_platform_goes_on(
    full, empty, clock, tmp_path, monkeypatch
):
    """A row is written between two tables of the backup; it is in neither or both."""
    database, real = full.open(), backup_rows.dump

    def dump(connection, table, names_object):
        with Session(database.writer) as session, session.begin():
            session.add(invocation(f"inv_{table.name}", status="queued"))
        return real(connection, table, names_object)

    monkeypatch.setattr("tidegate_controlplane.backup.save.dump", dump)
    await save(full.settings, tmp_path / "b.tar", clock, with_s3=False)
    database.close()
    await restore(empty.settings, tmp_path / "b.tar", clock)
    assert len(await full.rows_of(Invocation)) > 3
    assert len(await empty.rows_of(Invocation)) == 3


async def test_an_object_deleted_meanwhile_is_counted_and_stops_nothing(
    full, empty, clock, tmp_path
):
    await DirectoryStore(full.settings.objects_dir).delete("prj_1/requests/inv_done")
    summary = await save(full.settings, tmp_path / "b.tar", clock, with_s3=False)
    assert (summary.objects.named, summary.objects.gone) == (3, 1)
    await restore(empty.settings, tmp_path / "b.tar", clock)


def test_every_column_that_holds_a_key_is_known_to_name_an_object_or_not_to():
    """A new column must be added to what a backup copies, or here."""
    others = {"idempotency_key"}
    for table in SQLModel.metadata.tables.values():
        found = {c.name for c in table.columns if c.name.endswith("_key")} - others
        assert found == set(backup_rows.OBJECT_COLUMNS.get(table.name, ())), table.name


# --- S3 -------------------------------------------------------------------------------------------


async def test_objects_in_s3_are_listed_and_must_be_there_when_restored(
    s3_place, empty, clock, tmp_path
):
    path = tmp_path / "b.tar"
    summary = await save(s3_place.settings, path, clock, with_s3=False)
    assert (summary.objects.included, summary.objects.named) == (False, 3)
    assert not any(name.startswith("objects/") for name, _ in members(path))
    with pytest.raises(BackupError, match=r"stayed in s3://.*--objects"):
        await restore(empty.settings, path, clock)
    there = empty.settings.model_copy(update={"objects": s3_place.settings.objects})
    await restore(there, path, clock)
    assert not there.restoring_path.exists()


async def test_objects_copied_out_of_s3_can_be_restored_into_a_directory(
    s3_place, empty, clock, tmp_path
):
    await save(s3_place.settings, tmp_path / "b.tar", clock, with_s3=True)
    await restore(empty.settings, tmp_path / "b.tar", clock)
    store = DirectoryStore(empty.settings.objects_dir)
    assert {key: await store.read(key) for key in OBJECTS} == OBJECTS


@pytest.fixture
async def s3_place(full, s3_server, monkeypatch):
    from tidegate_controlplane.objects.open import open_objects

    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    place = f"s3://tidegate-test/backup-{time.monotonic_ns()}"
    full.settings = full.settings.model_copy(update={"objects": place})
    store = open_objects(full.settings)
    for key, content in OBJECTS.items():
        await store.put(key, [content])
    return full


# --- refusals -------------------------------------------------------------------------------------


async def test_an_archive_is_for_its_owner_and_is_never_written_over(full, archive, clock):
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    with pytest.raises(BackupError, match="exists already"):
        await save(full.settings, archive, clock, with_s3=False)


async def test_a_backup_of_nothing_is_refused_and_leaves_no_file(empty, clock, tmp_path):
    with pytest.raises(BackupError, match="no platform has run there"):
        await save(empty.settings, tmp_path / "b.tar", clock, with_s3=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "stranger"])
async def test_a_damaged_archive_touches_nothing(empty, archive, clock, damage):
    content = bytearray(archive.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[content.index(b"a large answer")] ^= 1
    else:
        content = bytearray(b"not a tar file at all" * 100)
    archive.write_bytes(content)
    with pytest.raises(BackupError, match=r"damaged|cut short"):
        await restore(empty.settings, archive, clock)
    assert not empty.settings.data_dir.exists()


async def test_a_member_that_the_manifest_does_not_name_is_refused(empty, archive, clock, tmp_path):
    other = tmp_path / "other.tar"
    with tarfile.open(archive) as before, tarfile.open(other, "w") as after:
        for member in before:
            if member.name == "manifest.jsonl":
                after.add(__file__, "objects/smuggled")
            after.addfile(member, before.extractfile(member))
    with pytest.raises(BackupError, match="'objects/smuggled' is not as its manifest says"):
        await restore(empty.settings, other, clock)


async def test_a_database_that_has_tables_is_refused(postgres, empty, archive, clock):
    taken = empty.settings.model_copy(update={"database": postgres.database()})
    with pytest.raises(BackupError, match="has tables already"):
        await restore(taken, archive, clock)
    check_whole(taken.restoring_path)


async def test_a_newer_schema_is_refused(full, empty, clock, tmp_path):
    database = full.open()
    with database.writer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    await save(full.settings, tmp_path / "b.tar", clock, with_s3=False)
    with pytest.raises(BackupError, match="'9999', which this version does not know"):
        await restore(empty.settings, tmp_path / "b.tar", clock)


async def test_a_place_that_is_not_empty_is_refused_and_stays_as_it_is(full, archive, clock):
    before = await full.rows_of(Invocation)
    with pytest.raises(BackupError, match="an empty place only"):
        await restore(full.settings, archive, clock)
    assert await full.rows_of(Invocation) == before
    check_whole(full.settings.restoring_path)


async def test_a_place_in_which_a_platform_runs_is_refused(empty, archive, clock):
    empty.settings.data_dir.mkdir()
    with owned(empty.settings.lock_path), pytest.raises(StartError, match="already runs"):
        await restore(empty.settings, archive, clock)


# --- killed ---------------------------------------------------------------------------------------

STEPS = ["_begin", "_restore_objects", "_restore_pepper", "_restore_rows"]


class StruckDown(BaseException):
    """Stands for the end of the process at this instruction."""


@pytest.mark.parametrize(
    ("engines", "step", "when"),
    [
        *((ROUTES[0], step, when) for step in STEPS for when in ("before", "after")),
        (ROUTES[1], "_restore_rows", "before"),
        (ROUTES[1], "_restore_rows", "after"),
    ],
    ids=str,
)
async def test_a_restore_that_ends_at_any_step_keeps_the_platform_down_and_is_begun_again(
    empty, archive, clock, monkeypatch, step, when
):
    with monkeypatch.context() as patched, pytest.raises(StruckDown):
        patched.setattr(restoring, step, strike(getattr(restoring, step), when))
        await restore(empty.settings, archive, clock)
    if (step, when) != ("_begin", "before"):
        with pytest.raises(StartError, match="has not come to its end"):
            check_whole(empty.settings.restoring_path)
        with pytest.raises(BackupError, match="has not ended"):
            await save(empty.settings, archive.with_name("again.tar"), clock, with_s3=False)
    await restore(empty.settings, archive, clock)
    await check_restored(empty)


async def test_a_restore_killed_among_its_rows_has_restored_none_of_them(empty, archive, clock):
    script = f"""
import asyncio, os, signal
from pathlib import Path
from tidegate_controlplane.backup import restore
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.settings import Settings
restore._settle = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
settings = Settings(data_dir=Path({str(empty.settings.data_dir)!r}))
asyncio.run(restore.restore(settings, Path({str(archive)!r}), SystemClock()))
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    database = empty.open()
    assert inspect(database.writer).get_table_names() == []
    database.close()
    await restore(empty.settings, archive, clock)
    await check_restored(empty)


async def test_an_unfinished_restore_is_not_gone_on_with_from_another_archive(
    full, empty, archive, clock, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched, pytest.raises(StruckDown):
        patched.setattr(restoring, "_restore_rows", strike(None, "before"))
        await restore(empty.settings, archive, clock)
    await save(full.settings, tmp_path / "other.tar", clock, with_s3=False)
    with pytest.raises(BackupError, match="a restore of another archive"):
        await restore(empty.settings, tmp_path / "other.tar", clock)


def strike(step, when):
    """The step `step`, at whose beginning or end the process dies."""

    def struck(*arguments):
        if when == "before":
            raise StruckDown
        result = step(*arguments)
        if asyncio.iscoroutine(result):
            return _after(result)
        raise StruckDown

    async def _after(running):
        await running
        raise StruckDown

    return struck


async def check_restored(place) -> None:
    check_whole(place.settings.restoring_path)
    assert len(await place.rows_of(Invocation)) == 3
    store = DirectoryStore(place.settings.objects_dir)
    assert {key: await store.read(key) for key in OBJECTS} == OBJECTS


# --- the commands ---------------------------------------------------------------------------------


def test_the_commands_back_up_and_restore_and_say_what_they_did(full, empty, tmp_path):
    file, data = str(tmp_path / "b.tar"), ("--data", str(empty.settings.data_dir))
    saved = CliRunner().invoke(app, ["backup", file, "--data", str(full.settings.data_dir)])
    assert saved.exit_code == 0, saved.output
    assert saved.stdout == f"{file}: 15 rows and 3 objects\n"
    assert "secrets" in saved.stderr
    restored = CliRunner().invoke(app, ["restore", file, *data, "--json"])
    assert json.loads(restored.stdout)["rows"]["invocation"] == 3
    again = CliRunner().invoke(app, ["restore", file, *data])
    assert again.exit_code == 1
    assert "restored into an empty place only" in again.output


def models():
    """Every declared table's class."""
    found, waiting = [], [SQLModel]
    while waiting:
        for each in waiting.pop().__subclasses__():
            waiting.append(each)
            if hasattr(each, "__table__"):
                found.append(each)
    return found
