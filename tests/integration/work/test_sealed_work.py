"""Durable work whose bodies and results are sealed: turned on, rotated, damaged, without a key."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from contextlib import suppress

import httpx
import pytest
from sqlalchemy import update

from tidegate_controlplane.api.encryption import HANDLERS
from tidegate_controlplane.app import build_app
from tidegate_controlplane.encryption.envelopes import Envelopes
from tidegate_controlplane.encryption.errors import KeysUnavailable
from tidegate_controlplane.encryption.key_file import FileKeys
from tidegate_controlplane.encryption.keyring import Keyring
from tidegate_controlplane.encryption.sealed_store import SealedStore
from tidegate_controlplane.errors import Conflict, StartError, Unavailable
from tidegate_controlplane.objects.base import StoreFull
from tidegate_controlplane.process import running
from tidegate_controlplane.settings import EncryptionSettings, Settings
from tidegate_controlplane.store import encryption_keys
from tidegate_controlplane.store.tables import Invocation
from tidegate_controlplane.work.key_ledger import settle_keys
from tidegate_controlplane.work.rotation import Rotation

LARGE = "large " * 1000
OLD, NEW = os.urandom(32), os.urandom(32)
OLD_ID, NEW_ID = FileKeys([OLD, NEW]).key_ids


def sealed(house, *keys, source=None, required=False):
    """What a process of this house is given that has these keys."""
    keyring = Keyring([source or FileKeys(keys)])
    return {
        "objects": SealedStore(house.objects, keyring, required=required),
        "envelopes": Envelopes(keyring, required=required),
    }


def on_disk(house):
    """Every byte below the data directory, the database and its log too."""
    found = [path for path in house.settings.data_dir.rglob("*") if path.is_file()]
    return b"".join(path.read_bytes() for path in found)


async def results(house, work, kit, ids):
    read = [json.loads(await work.invocations.result(kit.principal, one))["text"] for one in ids]
    return [text[: len("echo large")] for text in read]


async def fill(house, *keys):
    """One finished invocation of each size, as if by a process with these keys."""
    async with house.working(**(sealed(house, *keys) if keys else {})) as work:
        ids = [await house.submit(work, prompt) for prompt in ("large", LARGE)]
        for one in ids:
            await house.finished(work, one)
    return ids


async def passed(rotation, *, rewrap=True):
    """A whole pass, and what it found."""
    rotation.start(rewrap=rewrap)
    await rotation._task
    return rotation.view()


def uses(view):
    return {use.key: (use.objects, use.rows) for use in view.uses}


async def test_no_prompt_and_no_answer_is_readable_on_disk(house, kit):
    await house.deploy()
    async with house.working(**sealed(house, OLD, required=True)) as work:
        ids = [await house.submit(work, prompt) for prompt in ("large secret", LARGE)]
        for one in ids:
            await house.finished(work, one)
        batch = await house.ended(work, await house.batch(work, [kit.line("large")]))
        assert (await house.lines_of(work, batch.output_file_id))[0]["custom_id"] == "large"
        assert await results(house, work, kit, ids) == ["echo large"] * 2
        assert b"messages" not in on_disk(house) and b"echo" not in on_disk(house)


@pytest.mark.parametrize("prompt", ["large", LARGE])
async def test_the_result_of_another_project_does_not_open(house, kit, prompt):
    await house.deploy()
    async with house.working(**sealed(house, OLD)) as work:
        theirs = await house.submit(work, prompt)
        await house.finished(work, theirs)
        row = await house.row(theirs)

        def steal(session):
            session.execute(
                update(Invocation).where(Invocation.id == theirs).values(project_id="prj_2")
            )

        await house.db.write(steal)
        if row.result_key:
            path = house.settings.objects_dir / row.result_key
            stolen = house.settings.objects_dir / row.result_key.replace("prj_1", "prj_2")
            stolen.parent.mkdir(parents=True)
            stolen.write_bytes(path.read_bytes())
        with pytest.raises(Unavailable) as refused:
            await work.invocations.result(kit.stranger, theirs)
        assert refused.value.code == "storage_damaged"


async def test_work_waits_while_its_keys_cannot_be_asked_for_and_loses_no_attempt(house, kit):
    class Service(FileKeys):
        down = False

        async def unwrap(self, wrapped, name):
            if self.down:
                raise KeysUnavailable(f"no key for {name}")
            return await super().unwrap(wrapped, name)

    service = Service([OLD])
    served = await house.deploy(capacity=0)
    async with house.working(**sealed(house, source=service)) as work:
        invocation_id = await house.submit(work)
        service.down = True
        house.replicas_of(served, 1)
        row = await kit.until(lambda: house.row(invocation_id), lambda row: row.lease_epoch > 4)
        assert row.finished_at is None and row.attempt <= 1
        assert row.error["code"] == "storage_unavailable"
        service.down = False
        assert (await house.finished(work, invocation_id)).attempt == 1


class Results:
    """The house's object store, which has no room for results while it is full."""

    def __init__(self, house, monkeypatch):
        self.full, self.refused = True, []
        self._put = house.objects.put
        monkeypatch.setattr(house.objects, "put", self.put)

    async def put(self, key, chunks, max_bytes=None):
        if self.full and "/results/" in key:
            self.refused.append(key)
            raise StoreFull("no space")
        return await self._put(key, chunks, max_bytes)


async def test_an_answer_waits_until_it_can_be_stored(house, kit, monkeypatch):
    await house.deploy()
    results = Results(house, monkeypatch)
    async with house.working() as work:
        invocation_id = await house.submit(work, LARGE)
        await kit.until(lambda: asyncio.sleep(0, results.refused), lambda seen: len(seen) > 1)
        results.full = False
        done = await house.finished(work, invocation_id)
    assert (done.status, done.attempt) == ("succeeded", 1)
    assert house.replicas.asked == [LARGE]


async def test_answers_that_wait_take_the_room_of_those_that_would_follow(house, kit, monkeypatch):
    await house.deploy(capacity=2)
    results = Results(house, monkeypatch)
    async with house.working() as work:
        for _ in range(5):
            await house.submit(work, LARGE)
        await kit.until(lambda: asyncio.sleep(0, results.refused), lambda seen: len(seen) > 4)
        assert len(set(results.refused)) == len(house.replicas.asked) == 2
        results.full = False


async def test_a_caller_may_cancel_what_waits_to_be_stored(house, kit, monkeypatch):
    await house.deploy()
    results = Results(house, monkeypatch)
    async with house.working() as work:
        invocation_id = await house.submit(work, LARGE)
        await kit.until(lambda: asyncio.sleep(0, results.refused), bool)
        await work.invocations.cancel(kit.principal, invocation_id)
        assert (await house.finished(work, invocation_id)).status == "canceled"


async def test_an_answer_that_cannot_be_stored_before_the_end_is_made_again(
    house, kit, monkeypatch
):
    await house.deploy()
    results = Results(house, monkeypatch)
    async with asyncio.timeout(60), house.working() as work:
        invocation_id = await house.submit(work, LARGE)
        await kit.until(lambda: asyncio.sleep(0, results.refused), bool)
    handed_back = await house.row(invocation_id)
    assert (handed_back.status, handed_back.attempt) == ("queued", 0)
    results.full = False
    async with house.working() as work:
        assert (await house.finished(work, invocation_id)).attempt == 1


async def test_a_body_that_does_not_open_ends_with_its_cause(house, kit):
    served = await house.deploy(capacity=0)
    async with house.working(**sealed(house, OLD)) as work:
        invocation_id = await house.submit(work, LARGE)
        path = house.settings.objects_dir / f"prj_1/requests/{invocation_id}"
        path.write_bytes(path.read_bytes()[:-1])
        house.replicas_of(served, 1)
        done = await house.finished(work, invocation_id)
    assert done.status == "dead"
    assert f"prj_1/requests/{invocation_id}" in done.error.message
    assert "backup" in done.error.message


async def test_a_batch_closes_with_an_answer_that_does_not_open_in_its_error_file(house, kit):
    await house.deploy()
    large = kit.line("b", body=json.loads(kit.chat_bytes(LARGE)))

    async def stored():
        return list(house.settings.objects_dir.glob("prj_1/results/*/*"))

    async def damage_and_answer(prompt):
        """What is stored of the second line is cut before the last one is answered."""
        if prompt == "d":
            [path] = await kit.until(stored, bool)
            path.write_bytes(path.read_bytes()[:-1])
        return kit.said(f"echo {prompt}")

    house.replicas.behaviour = damage_and_answer
    async with house.working(**sealed(house, OLD)) as work:
        lines = [kit.line("a"), large, kit.line("c", url="/v1/no"), kit.line("d")]
        batch = await house.ended(work, await house.batch(work, lines))
        output = await house.lines_of(work, batch.output_file_id)
        errors = await house.lines_of(work, batch.error_file_id)
    assert batch.status == "completed"
    assert batch.request_counts.model_dump() == {"total": 4, "completed": 2, "failed": 2}
    assert [line["custom_id"] for line in output] == ["a", "d"]
    assert [(line["custom_id"], line["error"]["code"]) for line in errors] == [
        ("b", "result_unreadable"),
        ("c", "url_mismatch"),
    ]
    assert "backup" in errors[0]["error"]["message"]


# --- rotation -------------------------------------------------------------------------------------


async def test_after_a_rotation_the_old_key_may_be_taken_away(house, kit):
    await house.deploy()
    ids = await fill(house, OLD)
    await settle_keys(house.db, house.objects, Keyring([FileKeys([OLD])]), house.clock)
    await settle_keys(house.db, house.objects, Keyring([FileKeys([OLD, NEW])]), house.clock)
    with pytest.raises(StartError, match=rf"{OLD_ID}.*give it too"):
        await settle_keys(house.db, house.objects, Keyring([FileKeys([NEW])]), house.clock)
    rotation = Rotation(house.plane(**sealed(house, OLD, NEW)))
    assert uses(await passed(rotation, rewrap=False)) == {OLD_ID: (2, 2)}
    found = await passed(rotation)
    assert (uses(found), found.rewrapped, found.failed) == ({NEW_ID: (2, 2)}, 4, 0)
    await settle_keys(house.db, house.objects, Keyring([FileKeys([NEW])]), house.clock)
    async with house.working(**sealed(house, NEW)) as work:
        assert await results(house, work, kit, ids) == ["echo large"] * 2


async def test_a_rotation_that_is_killed_goes_on_where_it_was(house, kit, monkeypatch):
    await house.deploy()
    ids = [*await fill(house, OLD), *await fill(house, OLD)]
    parts = sealed(house, OLD, NEW)
    writes = 0
    for rest in (7, 4, 0):
        rotation = Rotation(house.plane(**parts))
        with monkeypatch.context() as patched, suppress(asyncio.CancelledError):
            patched.setattr(house.db, "write", killing_after(house.db.write, 2 if rest else 99))
            patched.setattr(house.objects, "put", killing_after(house.objects.put, 1))
            if not rest:
                patched.undo()
            await passed(rotation)
        writes += rotation.view().rewrapped
    assert writes == 8
    assert uses(rotation.view()) == {NEW_ID: (4, 4)}
    async with house.working(**sealed(house, NEW, required=True)) as work:
        assert await results(house, work, kit, ids) == ["echo large"] * 4


def killing_after(call, times):
    """`call` that works so often; then whoever calls it is killed."""
    done = 0

    async def limited(*args, **kwargs):
        nonlocal done
        if done == times:
            raise asyncio.CancelledError
        done += 1
        return await call(*args, **kwargs)

    return limited


async def test_a_rotation_seals_what_was_there_before_and_then_sealing_can_be_required(house, kit):
    await house.deploy()
    ids = await fill(house)
    assert b"messages" in on_disk(house)
    async with house.working(**sealed(house, NEW)) as work:
        assert await results(house, work, kit, ids) == ["echo large"] * 2
    async with house.working(**sealed(house, NEW, required=True)) as work:
        with pytest.raises(Unavailable, match="is not sealed"):
            await work.invocations.result(kit.principal, ids[0])
        found = await passed(work.rotation)
        assert uses(found) == {NEW_ID: (2, 2)}
        assert await results(house, work, kit, ids) == ["echo large"] * 2


async def test_a_row_that_changes_under_a_rotation_keeps_its_change(house):
    await house.deploy()
    ids = await fill(house, OLD)
    rotation, write = Rotation(house.plane(**sealed(house, OLD, NEW))), house.db.write

    async def changed_first(unit):
        house.db.write = write
        await write(lambda session: session.execute(update(Invocation).values(request=b"other")))
        return await write(unit)

    house.db.write = changed_first
    await passed(rotation)
    assert (await house.row(ids[0])).request == b"other"


async def test_what_does_not_open_is_told_and_keeps_its_key_needed(house, kit):
    await house.deploy()
    ids = await fill(house, OLD)
    await settle_keys(house.db, house.objects, Keyring([FileKeys([OLD])]), house.clock)
    path = house.settings.objects_dir / f"prj_1/requests/{ids[1]}"
    content = path.read_bytes()
    path.write_bytes(content[:60] + bytes(8) + content[68:])
    found = await passed(Rotation(house.plane(**sealed(house, OLD, NEW))))
    assert found.failed == 1 and ids[1] in found.errors[0]
    assert OLD_ID in await house.db.read(encryption_keys.recorded)


async def test_there_is_one_pass_at_a_time_and_none_without_a_key(house, kit):
    with pytest.raises(Conflict, match="encryption is off"):
        Rotation(house.plane()).start(rewrap=True)
    rotation = Rotation(house.plane(**sealed(house, OLD)))
    rotation.start(rewrap=False)
    with pytest.raises(Conflict, match="under way"):
        rotation.start(rewrap=True)
    await rotation.stop()
    assert (await passed(rotation)).failed == 0


# --- on and off -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["large", LARGE])
async def test_encryption_cannot_be_turned_off_while_something_sealed_is_kept(house, kit, prompt):
    await house.deploy()
    await settle_keys(house.db, house.objects, Keyring([FileKeys([OLD])]), house.clock)
    async with house.working(**sealed(house, OLD)) as work:
        invocation_id = await house.submit(work, prompt)
        await house.finished(work, invocation_id)
        with pytest.raises(StartError, match=rf"{OLD_ID}.*cannot be turned off"):
            await settle_keys(house.db, house.objects, None, house.clock)
        await work.invocations.delete(kit.principal, invocation_id)
    await settle_keys(house.db, house.objects, None, house.clock)
    assert await house.db.read(encryption_keys.recorded) == []


async def test_a_platform_starts_with_its_keys_and_not_without_what_it_needs(tmp_path):
    path = tmp_path / "keys"
    path.write_text(base64.b64encode(OLD).decode())
    path.chmod(0o600)
    settings = Settings(
        data_dir=tmp_path, port=0, encryption=EncryptionSettings(keys=(str(path),), required=True)
    )
    async with running(settings) as (services, _):
        app = build_app(services, HANDLERS)
        key = await services.keys.ensure_first()
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://platform",
            headers={"authorization": f"Bearer {key}"},
        ) as client:
            view = (await client.get("/api/v1/encryption")).json()
            assert (view["newest"], view["required"]) == (OLD_ID, True)
            begun = await client.post("/api/v1/encryption/passes", json={"rewrap": True})
            assert begun.status_code == 202
    path.write_text(base64.b64encode(NEW).decode())
    with pytest.raises(StartError, match=OLD_ID):
        async with running(settings):
            pass
