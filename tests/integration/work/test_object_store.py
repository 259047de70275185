"""What an object store promises, kept by a directory and by a real S3 server alike."""

from __future__ import annotations

import asyncio
import errno
import gc
import hashlib
import os
import stat
import time
import tracemalloc
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import boto3
import pytest

from tidegate_controlplane.encryption.key_file import FileKeys
from tidegate_controlplane.encryption.keyring import Keyring
from tidegate_controlplane.encryption.sealed_store import SealedStore
from tidegate_controlplane.errors import StartError
from tidegate_controlplane.objects import directory
from tidegate_controlplane.objects import s3 as s3_module
from tidegate_controlplane.objects.base import (
    ObjectNotFound,
    ObjectTooLarge,
    StoreFull,
    StoreUnavailable,
)
from tidegate_controlplane.objects.directory import LEFT_S, DirectoryStore
from tidegate_controlplane.objects.open import open_objects
from tidegate_controlplane.objects.s3 import PART_BYTES, S3Store
from tidegate_controlplane.settings import Settings

BUCKET = "tidegate-test"
"""Of the `s3_server` that all tests share."""


@pytest.fixture
def s3(s3_server, monkeypatch):
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return boto3.client("s3")


@pytest.fixture(params=["directory", "s3", "sealed directory", "sealed s3"])
def store(request, tmp_path):
    if request.param.endswith("directory"):
        plain = DirectoryStore(tmp_path / "objects")
    else:
        request.getfixturevalue("s3")
        plain = S3Store(BUCKET, f"test/{tmp_path.name}")
    if not request.param.startswith("sealed"):
        return plain
    return SealedStore(plain, Keyring([FileKeys([os.urandom(32)])]), required=True)


async def whole(store, key, start=0):
    return b"".join([piece async for piece in store.get(key, start)])


async def slowly(*pieces):
    for piece in pieces:
        await asyncio.sleep(0)
        if isinstance(piece, BaseException):
            raise piece
        yield piece


# --- both -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pieces",
    [[], [b""], [b"one"], [b"one", b"", b"two"], [b"x" * (PART_BYTES + 5)], [b"y" * PART_BYTES]],
    ids=["nothing", "empty", "one", "several", "two parts", "one whole part"],
)
async def test_what_was_put_is_what_one_gets_with_its_size_and_digest(store, pieces):
    content = b"".join(pieces)
    for given in (pieces, slowly(*pieces)):
        stored = await store.put("a/b", given)
        assert (stored.bytes, stored.sha256) == (
            len(content),
            hashlib.sha256(content).hexdigest(),
        )
        assert await whole(store, "a/b") == content
        assert await store.read("a/b") == content


async def test_reading_can_begin_anywhere(store):
    await store.put("k", [b"0123456789"])
    assert await whole(store, "k", 4) == b"456789"
    assert await whole(store, "k", 10) == b""
    assert await whole(store, "k", 99) == b""


async def test_putting_a_key_again_replaces_the_object(store):
    await store.put("k", [b"old and long"])
    await store.put("k", [b"new"])
    assert await store.read("k") == b"new"


async def test_an_absent_object_is_not_found_and_deleting_it_is_no_error(store):
    with pytest.raises(ObjectNotFound):
        await store.read("absent")
    with pytest.raises(ObjectNotFound):
        await whole(store, "absent", 3)
    assert not await store.exists("absent")
    await store.delete("absent")


async def test_a_deleted_object_is_gone(store):
    await store.put("k", [b"x"])
    assert await store.exists("k")
    await store.delete("k")
    assert not await store.exists("k")


@pytest.mark.parametrize("size", [5, 2 * PART_BYTES], ids=["small", "several parts"])
async def test_more_than_allowed_is_refused_and_the_key_is_as_it_was(store, size):
    await store.put("k", [b"before"])
    with pytest.raises(ObjectTooLarge):
        await store.put("k", slowly(b"x" * size, b"y"), max_bytes=size)
    assert await store.read("k") == b"before"
    assert (await store.put("k", [b"x" * size], max_bytes=size)).bytes == size


async def test_a_source_that_breaks_off_leaves_the_key_as_it_was(store):
    with pytest.raises(ConnectionResetError):
        await store.put("k", slowly(b"x" * (2 * PART_BYTES), ConnectionResetError()))
    assert not await store.exists("k")


async def test_a_cancelled_put_leaves_the_key_as_it_was(store):
    async def endless():
        while True:
            yield b"x" * PART_BYTES
            await asyncio.sleep(0.05)

    putting = asyncio.create_task(store.put("k", endless()))
    await asyncio.sleep(0.15)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert not await store.exists("k")


async def test_a_reader_that_is_cancelled_or_stops_early_leaves_nothing_open(store):
    await store.put("k", [b"x" * (3 * PART_BYTES)])
    reading = asyncio.create_task(store.read("k"))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])
    first_piece = anext(store.get("k"))
    cancelled = asyncio.create_task(first_piece)
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    async with aclosing(store.get("k")) as pieces:
        assert await anext(pieces)
    gc.collect()  # what were still open would warn now


async def test_writers_of_one_key_do_not_mix(store):
    contents = [bytes([number]) * 100_000 for number in range(8)]
    await asyncio.gather(*(store.put("k", [content]) for content in contents))
    assert await store.read("k") in contents


@pytest.mark.parametrize("key", ["../x", "/x", "a/../../x"])
async def test_a_key_that_could_leave_the_store_is_refused(store, key):
    for use in (store.put(key, [b"x"]), store.read(key), store.delete(key), store.exists(key)):
        with pytest.raises(ValueError, match="not an object key"):
            await use


async def test_a_listing_has_each_object_below_the_prefix_with_its_size_and_time(store):
    before = datetime.now(UTC) - timedelta(seconds=2)  # a store may keep whole seconds
    for key in ("prj_1/a/1", "prj_1/a/2", "prj_1/ab", "prj_2/a/1"):
        await store.put(key, [b"x" * 10])
    found = [listed async for listed in store.list("prj_1/a")]
    assert sorted(listed.key for listed in found) == ["prj_1/a/1", "prj_1/a/2", "prj_1/ab"]
    assert all(listed.bytes >= 10 for listed in found)
    assert all(before <= listed.modified_at <= datetime.now(UTC) for listed in found)
    assert len([listed async for listed in store.list()]) == 4
    assert [listed async for listed in store.list("prj_3/")] == []


async def test_a_listing_of_several_pages_has_each_object_once(store, monkeypatch):
    for module in (directory, s3_module):
        monkeypatch.setattr(module, "LIST_PAGE", 2)
    keys = {f"prj_1/{number}" for number in range(5)}
    for key in keys:
        await store.put(key, [b"x"])
    found = [listed.key async for listed in store.list("prj_1/")]
    assert len(found) == 5 and set(found) == keys


# --- the directory --------------------------------------------------------------------------------


async def test_what_a_killed_writer_left_is_removed_at_start_and_objects_stay(tmp_path):
    store = DirectoryStore(tmp_path)
    await store.put("kept/k", [b"x"])
    left, written_now = (tmp_path / ".unfinished" / name for name in ("left", "now"))
    for path in (left, written_now):
        path.write_bytes(b"half")
    os.utime(left, (time.time() - 2 * LEFT_S,) * 2)
    again = DirectoryStore(tmp_path)
    assert list((tmp_path / ".unfinished").iterdir()) == [written_now]
    assert await again.read("kept/k") == b"x"


async def test_an_object_is_synced_before_it_has_its_name_and_its_folder_after(
    tmp_path, monkeypatch
):
    store, happened = DirectoryStore(tmp_path), []
    sync, target = os.fsync, tmp_path / "a" / "k"

    def fsync(fd):
        kind = "folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
        happened.append((kind, target.exists()))
        sync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    await store.put("a/k", [b"x"])
    assert happened == [("file", False), ("folder", False), ("folder", True)]


async def test_a_deletion_leaves_no_empty_folder_and_spares_what_is_beside(tmp_path):
    store = DirectoryStore(tmp_path)
    for key in ("p/results/1/1", "p/results/1/2"):
        await store.put(key, [b"x"])
    await store.delete("p/results/1/1")
    assert await store.read("p/results/1/2") == b"x"
    await store.delete("p/results/1/2")
    assert not (tmp_path / "p").exists() and tmp_path.exists()


async def test_writers_and_deletions_of_neighbours_do_not_disturb_each_other(tmp_path):
    store = DirectoryStore(tmp_path)

    async def come_and_go(number):
        for _ in range(30):
            await store.put(f"p/q/{number}", [b"x"])
            await store.delete(f"p/q/{number}")

    await asyncio.gather(*(come_and_go(number) for number in range(4)))


async def test_old_leftovers_of_writers_are_dropped_and_young_ones_stay(tmp_path):
    store = DirectoryStore(tmp_path)
    for name, age_s in (("old", 7200), ("young", 0)):
        path = tmp_path / ".unfinished" / name
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age_s, time.time() - age_s))
    assert await store.drop_unfinished(3600) == 1
    assert [path.name for path in (tmp_path / ".unfinished").iterdir()] == ["young"]
    assert [listed async for listed in store.list()] == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_is_said_plainly_and_leaves_nothing(tmp_path, monkeypatch, code):
    store = DirectoryStore(tmp_path)

    def write(fd, data):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(StoreFull, match="no space is left"):
            await store.put("k", [b"x"])
    assert not await store.exists("k") and list((tmp_path / ".unfinished").iterdir()) == []
    await store.put("k", [b"x"])  # it recovers by itself


# --- S3 -------------------------------------------------------------------------------------------


async def test_a_failed_multipart_upload_is_aborted(s3):
    store = S3Store(BUCKET, "aborted")
    with pytest.raises(ConnectionResetError):
        await store.put("k", slowly(b"x" * (3 * PART_BYTES), ConnectionResetError()))
    found = s3.list_multipart_uploads(Bucket=BUCKET, Prefix="aborted/")
    assert found.get("Uploads", []) == []


async def test_old_unfinished_uploads_are_aborted_and_young_ones_and_neighbours_stay(s3):
    for key in ("mine/a", "other/a"):
        s3.create_multipart_upload(Bucket=BUCKET, Key=key)
    store = S3Store(BUCKET, "mine")

    def unfinished(prefix):
        return s3.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads", [])

    assert await store.drop_unfinished(3600) == 0 and len(unfinished("mine/")) == 1
    assert await store.drop_unfinished(-5) == 1 and unfinished("mine/") == []
    assert len(unfinished("other/")) == 1


def test_settings_choose_a_bucket_and_a_prefix(s3, tmp_path):
    store = open_objects(Settings(data_dir=tmp_path, objects=f"s3://{BUCKET}/some/prefix/"))
    asyncio.run(store.put("k", [b"x"]))
    assert s3.get_object(Bucket=BUCKET, Key="some/prefix/k")["Body"].read() == b"x"


def test_a_bucket_that_does_not_exist_stops_the_start(s3, tmp_path):
    with pytest.raises(StartError, match="s3://absent-bucket cannot be used"):
        open_objects(Settings(data_dir=tmp_path, objects="s3://absent-bucket"))


async def test_a_server_that_does_not_answer_is_unavailable(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # discard: nobody listens
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreUnavailable):
        await S3Store(BUCKET).read("k")


# --- sealed ---------------------------------------------------------------------------------------


async def test_a_large_sealed_object_is_never_in_memory(tmp_path):
    store = SealedStore(DirectoryStore(tmp_path), Keyring([FileKeys([os.urandom(32)])]))

    async def many():
        for _ in range(48):
            yield bytes(1024 * 1024)

    tracemalloc.start()
    try:
        await store.put("k", many())
        async with aclosing(store.get("k")) as pieces:
            assert sum([len(piece) async for piece in pieces]) == 48 * 1024 * 1024
        await store.rewrap("k")
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()
