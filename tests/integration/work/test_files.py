"""Files: kept whole, or not at all."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tidegate_controlplane.errors import BadRequest, NotFound, TooLarge, Unavailable
from tidegate_controlplane.objects.base import ObjectTooLarge, StoreFull
from tidegate_controlplane.store.files import Page
from tidegate_controlplane.work.files import Files, Part
from tidegate_controlplane.work.retention import Retention


async def data(*pieces):
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        yield piece


async def form(*given):
    for name, filename, *pieces in given:
        yield Part(name, filename, data(*pieces))


FILE = ("file", "a.jsonl", b"one\n", b"two\n")
PURPOSE = ("purpose", None, b"batch")
ANCHOR = ("expires_after[anchor]", None, b"created_at")


def seconds(value):
    return ("expires_after[seconds]", None, value)


@pytest.fixture
def files(house):
    return house.work().files


def kept(house):
    return [path for path in house.settings.objects_dir.rglob("*") if path.is_file()]


@pytest.mark.parametrize("parts", [(FILE, PURPOSE), (PURPOSE, FILE)], ids=["first", "last"])
async def test_a_file_comes_back_as_it_was_wherever_it_stands_in_the_form(files, kit, parts):
    made = await files.create(kit.principal, form(*parts))
    assert (made.bytes, made.filename, made.purpose) == (8, "a.jsonl", "batch")
    found, pieces = await files.content(kit.principal, made.id)
    assert found == made
    assert b"".join([piece async for piece in pieces]) == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([], "file"),
        ([PURPOSE], "file"),
        ([FILE], "purpose"),
        ([FILE, ("purpose", None, b"fine-tune")], "purpose"),
        ([FILE, ("purpose", None, b"x" * 9999)], "purpose"),
        ([FILE, PURPOSE, FILE], "file"),
        ([PURPOSE, PURPOSE, FILE], "purpose"),
        ([FILE, PURPOSE, ("expires_after[seconds]", None, b"3600")], "expires_after[anchor]"),
        ([FILE, PURPOSE, ANCHOR], "expires_after[seconds]"),
        ([FILE, PURPOSE, ANCHOR, seconds(b"3599")], "expires_after[seconds]"),
        ([FILE, PURPOSE, ANCHOR, seconds(b"2592001")], "expires_after[seconds]"),
        ([FILE, PURPOSE, ANCHOR, seconds(b"soon")], "expires_after[seconds]"),
        (
            [FILE, PURPOSE, ("expires_after[anchor]", None, b"used_at"), seconds(b"3600")],
            "expires_after[anchor]",
        ),
        ([FILE, PURPOSE, ("expires_after", None, b"3600")], "expires_after"),
    ],
)
async def test_a_form_that_is_wrong_is_refused_by_name_and_keeps_nothing(
    house, files, kit, parts, param
):
    with pytest.raises(BadRequest) as refused:
        await files.create(kit.principal, form(*parts))
    assert refused.value.param == param
    assert kept(house) == []


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\data\\in.jsonl", "in.jsonl"),
        ("a\x00\nb", "ab"),
        ("", "upload.jsonl"),
        (None, "upload.jsonl"),
        ("x" * 999, "x" * 255),
    ],
)
async def test_a_file_name_is_only_a_name(files, kit, given, shown):
    made = await files.create(kit.principal, form(("file", given, b"x"), PURPOSE))
    assert made.filename == shown


async def test_an_upload_that_breaks_off_keeps_nothing(house, files, kit):
    broken = ("file", "a", b"x" * 5000, ConnectionResetError("the client is gone"))
    with pytest.raises(ConnectionResetError):
        await files.create(kit.principal, form(PURPOSE, broken))
    assert kept(house) == []


class Broken:
    """An object store that takes nothing."""

    def __init__(self, error):
        self.error = error

    async def put(self, key, chunks, max_bytes=None):
        raise self.error

    async def delete(self, key):
        pass


@pytest.mark.parametrize(
    ("error", "answer", "code"),
    [
        (StoreFull("x"), Unavailable, "storage_full"),
        (ObjectTooLarge("x"), TooLarge, "request_too_large"),
    ],
)
async def test_what_the_store_cannot_take_is_answered_plainly(house, kit, error, answer, code):
    files = Files(house.db, Broken(error), house.clock, 600)
    with pytest.raises(answer) as refused:
        await files.create(kit.principal, form(FILE, PURPOSE))
    assert refused.value.code == code


async def test_a_deleted_file_is_gone_with_its_bytes(house, files, kit):
    made = await files.create(kit.principal, form(FILE, PURPOSE))
    assert (await files.delete(kit.principal, made.id)).id == made.id
    for look in (files.get, files.content, files.delete):
        with pytest.raises(NotFound):
            await look(kit.principal, made.id)
    assert (await files.list(kit.principal, Page(limit=5))).data == []
    assert kept(house) == []


async def test_another_project_sees_no_file(files, kit):
    made = await files.create(kit.principal, form(FILE, PURPOSE))
    for look in (files.get, files.content, files.delete):
        with pytest.raises(NotFound):
            await look(kit.stranger, made.id)
    assert (await files.list(kit.stranger, Page(limit=5))).data == []


async def test_the_list_of_files_goes_on_after_its_cursor_and_knows_purposes(files, kit):
    ids = [(await files.create(kit.principal, form(FILE, PURPOSE))).id for _ in range(3)]
    ids.sort(reverse=True)
    first = await files.list(kit.principal, Page(limit=2))
    rest = await files.list(kit.principal, Page(first.last_id, 2))
    assert [one.id for one in first.data + rest.data] == ids
    assert (first.has_more, rest.has_more) == (True, False)
    outputs = await files.list(kit.principal, Page(purpose="batch_output"))
    assert (outputs.data, outputs.first_id, outputs.last_id) == ([], None, None)


async def test_a_list_of_files_may_begin_with_the_oldest(files, kit):
    ids = sorted([(await files.create(kit.principal, form(FILE, PURPOSE))).id for _ in range(3)])
    first = await files.list(kit.principal, Page(limit=2, ascending=True))
    rest = await files.list(kit.principal, Page(first.last_id, 2, ascending=True))
    assert [one.id for one in first.data + rest.data] == ids


async def test_a_file_lasts_thirty_days_or_as_long_as_it_was_asked_to(files, kit):
    usual = await files.create(kit.principal, form(FILE, PURPOSE))
    short = await files.create(kit.principal, form(FILE, PURPOSE, ANCHOR, seconds(b"3600")))
    assert usual.expires_at == usual.created_at + 30 * 86_400
    assert short.expires_at == short.created_at + 3600


async def test_an_expired_file_is_gone_and_its_bytes_follow(house, files, kit):
    made = await files.create(kit.principal, form(FILE, PURPOSE, ANCHOR, seconds(b"3600")))
    house.clock.ahead += timedelta(seconds=3601)
    for look in (files.get, files.content, files.delete):
        with pytest.raises(NotFound):
            await look(kit.principal, made.id)
    assert (await files.list(kit.principal, Page())).data == []
    assert len(kept(house)) == 1
    await Retention(house.plane()).tick()
    assert kept(house) == []


async def test_an_expired_file_stays_for_the_unfinished_batch_that_reads_it(house, kit):
    work = house.work()
    batch_id = await house.batch(work, [b"{}"])
    house.clock.ahead += timedelta(days=31)
    await Retention(house.plane()).tick()
    assert len(kept(house)) == 1
    async with house.working() as work:
        done = await house.ended(work, batch_id)
    assert done.status == "expired" or done.request_counts.total == 1
    await Retention(house.plane()).tick()
    assert all("input" not in path.name and "/files/" not in str(path) for path in kept(house))
