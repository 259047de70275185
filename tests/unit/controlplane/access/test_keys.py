from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlmodel import select

from tidegate.protocol.api_keys import new_key, new_secret
from tidegate.protocol.resources import ApiKeyRequest, KeyRole
from tidegate_controlplane.access.keys import KeyService
from tidegate_controlplane.errors import Conflict, NotFound, StartError, Unauthenticated
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.tables import DEFAULT_PROJECT, ApiKey, Project

ADMIN = ApiKeyRequest(name="admin", role=KeyRole.ADMIN)
PLAIN = ApiKeyRequest(name="plain", requests_per_minute=7, tokens_per_minute=None)


def bearer(key: str) -> str:
    return f"Bearer {key}"


class CountingDatabase:
    """A real database that counts how often it is read."""

    def __init__(self, database: Database) -> None:
        self.reads = 0
        self._database = database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def read(self, unit: Any) -> Any:
        self.reads += 1
        return await self._database.read(unit)


@pytest.fixture(autouse=True)
async def first(keys: KeyService) -> str:
    key = await keys.ensure_first()
    assert key is not None
    return key


async def test_the_first_key_is_an_unlimited_admin_of_the_default_project(
    keys: KeyService, first: str
) -> None:
    principal = await keys.authenticate(bearer(first))
    assert (principal.role, principal.project_id) == (KeyRole.ADMIN, DEFAULT_PROJECT)
    assert principal.requests_per_minute is None
    assert principal.tokens_per_minute is None


async def test_the_first_key_is_made_once(keys: KeyService) -> None:
    assert await keys.ensure_first() is None


async def test_a_key_that_was_given_opens_everything_and_is_made_once(keys: KeyService) -> None:
    given = new_key()
    assert await keys.ensure_given(given)
    assert await keys.ensure_given(given)
    principal = await keys.authenticate(bearer(given))
    assert (principal.role, principal.project_id) == (KeyRole.ADMIN, DEFAULT_PROJECT)
    assert principal.tokens_per_minute is None
    page = await keys.list(DEFAULT_PROJECT, None, 10)
    assert sorted(key.name for key in page.data) == ["first", "given"]


async def test_a_given_key_that_was_revoked_stays_revoked(keys: KeyService) -> None:
    given = new_key()
    await keys.ensure_given(given)
    await keys.revoke(DEFAULT_PROJECT, (await keys.authenticate(bearer(given))).key_id)
    assert not await keys.ensure_given(given)
    with pytest.raises(Unauthenticated, match="revoked"):
        await keys.authenticate(bearer(given))


async def test_what_is_given_and_no_key_of_this_platform_is_refused(
    keys: KeyService, database: Database, clock: Any
) -> None:
    given = new_key()
    with pytest.raises(StartError, match=r"TIDEGATE_ADMIN_KEY holds no whole API key.*keys new"):
        await keys.ensure_given(given[:-1])
    await keys.ensure_given(given)
    other = new_secret("key_" + given.split("_")[1])
    with pytest.raises(StartError, match="another secret or another pepper") as caught:
        await keys.ensure_given(other)
    assert other not in str(caught.value)
    with pytest.raises(StartError, match="restore the pepper"):
        await KeyService(database, b"x" * 32, clock).ensure_given(given)


async def test_a_key_is_recognised_with_its_role_and_limits(keys: KeyService) -> None:
    made = await keys.create(DEFAULT_PROJECT, PLAIN)
    principal = await keys.authenticate(bearer(made.key))
    assert (principal.key_id, principal.name, principal.role) == (
        made.id,
        "plain",
        KeyRole.INFERENCE,
    )
    assert (principal.requests_per_minute, principal.tokens_per_minute) == (7, None)


async def test_the_secret_is_stored_nowhere(keys: KeyService, database: Database) -> None:
    made = await keys.create(DEFAULT_PROJECT, PLAIN)
    rows = await database.read(lambda session: list(session.exec(select(ApiKey))))
    secret = made.key.split("_")[2]
    assert all(secret not in repr(row.model_dump()) for row in rows)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (None, "no API key was given"),
        ("", "not a bearer token"),
        ("Basic abc", "not a bearer token"),
        ("Bearer", "not a whole API key"),
        ("Bearer sk-123", "not a whole API key"),
    ],
)
async def test_what_is_no_key_is_refused_and_told_what_to_send(
    keys: KeyService, header: str | None, says: str
) -> None:
    with pytest.raises(Unauthenticated, match=says) as caught:
        await keys.authenticate(header)
    assert "Authorization: Bearer tg_" in caught.value.message


async def test_a_mistyped_key_is_told_from_a_wrong_one_without_a_read(
    database: Database, first: str
) -> None:
    counting = CountingDatabase(database)
    keys = KeyService(counting, b"x" * 32, None)  # type: ignore[arg-type]
    mistyped = first[:40] + ("A" if first[40] != "A" else "B") + first[41:]
    with pytest.raises(Unauthenticated, match="checksum"):
        await keys.authenticate(bearer(mistyped))
    assert counting.reads == 0


async def test_another_secret_with_a_right_checksum_is_refused(
    keys: KeyService, first: str
) -> None:
    forged = new_secret("key_" + first.split("_")[1])
    assert forged != first
    with pytest.raises(Unauthenticated, match="unknown") as caught:
        await keys.authenticate(bearer(forged))
    assert forged not in caught.value.message


async def test_another_pepper_makes_every_key_unknown(database: Database, first: str) -> None:
    others = KeyService(database, b"x" * 32, None)  # type: ignore[arg-type]
    with pytest.raises(Unauthenticated, match="unknown"):
        await others.authenticate(bearer(first))


async def test_a_key_in_use_costs_one_read(
    database: Database, keys: KeyService, clock: Any
) -> None:
    made = await keys.create(DEFAULT_PROJECT, PLAIN)
    counting = CountingDatabase(database)
    keys._db = counting  # type: ignore[assignment]
    for _ in range(5):
        await keys.authenticate(bearer(made.key))
    assert counting.reads == 1


async def test_a_revoked_key_is_refused_at_once_though_it_was_in_memory(keys: KeyService) -> None:
    made = await keys.create(DEFAULT_PROJECT, PLAIN)
    await keys.authenticate(bearer(made.key))
    view = await keys.revoke(DEFAULT_PROJECT, made.id)
    assert view.revoked_at is not None
    with pytest.raises(Unauthenticated, match="revoked"):
        await keys.authenticate(bearer(made.key))


async def test_a_read_that_began_before_a_revocation_is_not_kept(
    keys: KeyService, database: Database
) -> None:
    made = await keys.create(DEFAULT_PROJECT, PLAIN)
    stale_read, go_on = asyncio.Event(), asyncio.Event()

    class SlowReads(CountingDatabase):
        async def read(self, unit: Any) -> Any:
            row = await super().read(unit)
            stale_read.set()
            await go_on.wait()
            return row

    keys._db = SlowReads(database)  # type: ignore[assignment]
    asking = asyncio.create_task(keys.authenticate(bearer(made.key)))
    await stale_read.wait()
    await keys.revoke(DEFAULT_PROJECT, made.id)
    go_on.set()
    await asking
    with pytest.raises(Unauthenticated, match="revoked"):
        await keys.authenticate(bearer(made.key))


async def test_a_revocation_whose_caller_goes_away_still_counts(keys: KeyService) -> None:
    made = await keys.create(DEFAULT_PROJECT, PLAIN)
    await keys.authenticate(bearer(made.key))
    revoking = asyncio.create_task(keys.revoke(DEFAULT_PROJECT, made.id))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    revoking.cancel()
    await asyncio.gather(revoking, *keys._revoking, return_exceptions=True)
    with pytest.raises(Unauthenticated, match="revoked"):
        await keys.authenticate(bearer(made.key))


async def test_revoking_again_changes_nothing(keys: KeyService, clock: Any) -> None:
    made = await keys.create(DEFAULT_PROJECT, PLAIN)
    once = await keys.revoke(DEFAULT_PROJECT, made.id)
    clock.elapsed_s += 60
    assert await keys.revoke(DEFAULT_PROJECT, made.id) == once


async def test_the_last_admin_key_cannot_be_revoked(keys: KeyService, first: str) -> None:
    first_id = (await keys.authenticate(bearer(first))).key_id
    await keys.create(DEFAULT_PROJECT, PLAIN)
    with pytest.raises(Conflict, match="last admin key"):
        await keys.revoke(DEFAULT_PROJECT, first_id)
    await keys.create(DEFAULT_PROJECT, ADMIN)
    assert (await keys.revoke(DEFAULT_PROJECT, first_id)).revoked_at is not None


async def test_a_key_of_another_project_is_not_found(keys: KeyService, database: Database) -> None:
    made = await keys.create(DEFAULT_PROJECT, PLAIN)
    for project, key_id in (("prj_other", made.id), (DEFAULT_PROJECT, "key_none")):
        with pytest.raises(NotFound):
            await keys.revoke(project, key_id)


async def test_the_list_goes_on_where_its_page_ended_and_stays_in_its_project(
    keys: KeyService, database: Database, clock: Any
) -> None:
    await database.write(
        lambda session: session.add(Project(id="prj_b", name="b", created_at=clock.now()))
    )
    await keys.create("prj_b", PLAIN)
    made = [await keys.create(DEFAULT_PROJECT, PLAIN) for _ in range(4)]
    first = await keys.list(DEFAULT_PROJECT, None, 3)
    second = await keys.list(DEFAULT_PROJECT, first.next, 3)
    assert first.has_more
    assert not second.has_more
    assert second.next is None
    listed = [view.id for view in (*first.data, *second.data)]
    assert listed[1:] == sorted(key.id for key in made)
    assert all("key" not in view.model_dump() for view in first.data)
