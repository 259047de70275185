"""What a sealed store promises whatever its content, its chunks and the damage done to it."""

from __future__ import annotations

import hashlib
import os
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_controlplane.encryption import envelope, sealed_store
from tidegate_controlplane.encryption.envelope import MAGIC, TAG_BYTES, parse
from tidegate_controlplane.encryption.envelopes import Envelopes
from tidegate_controlplane.encryption.errors import KeyMissing, NotSealed, ObjectDamaged
from tidegate_controlplane.encryption.key_file import FileKeys
from tidegate_controlplane.encryption.keyring import Keyring
from tidegate_controlplane.encryption.sealed_store import SealedStore
from tidegate_controlplane.objects.base import ObjectNotFound, ObjectTooLarge, Stored

CHUNK = 16
NAME = "prj_1/requests/inv_1"
OLD, NEW = os.urandom(32), os.urandom(32)


class MemoryStore:
    """The part of an object store that bytes go through, in pieces of a given size."""

    def __init__(self, piece_bytes: int = 7) -> None:
        self.objects: dict[str, bytes] = {}
        self.piece_bytes = piece_bytes
        self.bytes_read = 0

    async def put(self, key, chunks, max_bytes=None):
        content = b"".join([chunk async for chunk in chunks])
        self.objects[key] = content
        return Stored(len(content), "")

    async def get(self, key, start=0):
        if key not in self.objects:
            raise ObjectNotFound(key)
        content = self.objects[key][start:]
        for at in range(0, len(content), self.piece_bytes):
            self.bytes_read += self.piece_bytes
            yield content[at : at + self.piece_bytes]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks of a few bytes: what depends on their number shows with short contents."""
    monkeypatch.setattr(sealed_store, "CHUNK_BYTES", CHUNK)
    header = envelope.Header
    monkeypatch.setattr(sealed_store, "Header", lambda wrapped: header(wrapped, chunk_bytes=CHUNK))


def store_of(*keys: bytes, inner: MemoryStore | None = None, required: bool = False) -> SealedStore:
    return SealedStore(inner or MemoryStore(), Keyring([FileKeys(keys)]), required=required)


async def stored(content: bytes) -> tuple[MemoryStore, SealedStore]:
    inner = MemoryStore()
    store = store_of(OLD, inner=inner)
    await store.put(NAME, [content])
    return inner, store


async def whole(store: SealedStore, start: int = 0, name: str = NAME) -> bytes:
    async with aclosing(store.get(name, start)) as pieces:
        return b"".join([piece async for piece in pieces])


def cut(content: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(content[at : at + size])
        at += size
    return [*pieces, content[at:]]


CONTENT = st.binary(max_size=5 * CHUNK)


@given(CONTENT, st.lists(st.integers(0, 40), max_size=6), st.integers(1, 60))
@settings(max_examples=150)
async def test_what_was_put_in_any_pieces_is_read_back_from_any_pieces(content, sizes, piece_bytes):
    inner = MemoryStore(piece_bytes)
    store = store_of(OLD, inner=inner)
    told = await store.put(NAME, cut(content, sizes))
    assert told == Stored(len(content), hashlib.sha256(content).hexdigest())
    assert await whole(store) == content
    if len(content) >= 8:
        assert content not in inner.objects[NAME]


@given(CONTENT, st.integers(0, 6 * CHUNK))
@settings(max_examples=150)
async def test_a_read_may_begin_at_any_byte(content, start):
    _, store = await stored(content)
    assert await whole(store, start) == content[start:]


async def test_a_read_from_far_behind_does_not_read_what_is_before():
    inner, store = await stored(bytes(200 * CHUNK))
    inner.bytes_read = 0
    assert await whole(store, 199 * CHUNK) == bytes(CHUNK)
    assert inner.bytes_read < 12 * CHUNK


@given(CONTENT, st.data())
@settings(max_examples=200)
async def test_no_flipped_bit_goes_unseen(content, data):
    inner, _ = await stored(content)
    sealed_bytes = bytearray(inner.objects[NAME])
    at = data.draw(st.integers(0, len(sealed_bytes) - 1))
    sealed_bytes[at] ^= 1 << data.draw(st.integers(0, 7))
    inner.objects[NAME] = bytes(sealed_bytes)
    with pytest.raises((ObjectDamaged, KeyMissing)):  # a flip in the key's id names another key
        await whole(store_of(OLD, inner=inner, required=True))


@given(CONTENT, st.data())
@settings(max_examples=150)
async def test_no_truncation_goes_unseen_wherever_a_read_begins(content, data):
    inner, _ = await stored(content)
    kept = data.draw(st.integers(0, len(inner.objects[NAME]) - 1))
    inner.objects[NAME] = inner.objects[NAME][:kept]
    start = data.draw(st.integers(0, len(content) + 2 * CHUNK))
    with pytest.raises(ObjectDamaged):
        await whole(store_of(OLD, inner=inner, required=True), start)


@pytest.mark.parametrize("chunks", [0, 1, 2])
async def test_an_object_that_ends_after_a_whole_chunk_too_early_does_not_open(chunks):
    inner, store = await stored(bytes(3 * CHUNK))
    _, at = parse(inner.objects[NAME], NAME)
    inner.objects[NAME] = inner.objects[NAME][: at + chunks * (CHUNK + TAG_BYTES)]
    for start in (0, CHUNK, 2 * CHUNK, 3 * CHUNK):
        with pytest.raises(ObjectDamaged):
            await whole(store, start)


@given(CONTENT, st.binary(min_size=1, max_size=3 * CHUNK))
@settings(max_examples=100)
async def test_nothing_can_be_added_at_the_end(content, more):
    inner, store = await stored(content)
    inner.objects[NAME] += more
    with pytest.raises(ObjectDamaged):
        await whole(store)


@given(st.permutations(range(4)))
@settings(max_examples=24)
async def test_chunks_in_another_order_do_not_open(order):
    content = bytes(range(4 * CHUNK))
    inner, store = await stored(content)
    _, at = parse(inner.objects[NAME], NAME)
    frame = CHUNK + TAG_BYTES
    head, body = inner.objects[NAME][:at], inner.objects[NAME][at:]
    inner.objects[NAME] = head + b"".join(body[n * frame : (n + 1) * frame] for n in order)
    if order == [0, 1, 2, 3]:
        assert await whole(store) == content
    else:
        with pytest.raises(ObjectDamaged):
            await whole(store)


async def test_a_chunk_of_another_object_does_not_open():
    inner, store = await stored(b"a" * CHUNK)
    await store.put("prj_1/requests/inv_2", [b"b" * CHUNK])
    other = inner.objects["prj_1/requests/inv_2"]
    frame = CHUNK + TAG_BYTES
    inner.objects[NAME] = inner.objects[NAME][:-frame] + other[-frame:]
    with pytest.raises(ObjectDamaged):
        await whole(store)


@pytest.mark.parametrize("name", ["prj_2/requests/inv_1", "prj_1/requests/inv_2"])
async def test_an_object_moved_to_another_project_or_name_does_not_open(name):
    inner, store = await stored(b"secret")
    inner.objects[name] = inner.objects[NAME]
    with pytest.raises(ObjectDamaged, match="restore it from a backup"):
        await whole(store, name=name)


async def test_a_name_is_bound_to_the_chunks_as_well_as_to_the_key():
    inner, store = await stored(b"secret")
    header, at = parse(inner.objects[NAME], NAME)
    keyring = Keyring([FileKeys([OLD])])
    data_key = await keyring.unwrap(header.wrapped, NAME)
    moved = header.with_key(await FileKeys([OLD]).wrap(data_key, "prj_2/x"))
    inner.objects["prj_2/x"] = moved.pack() + inner.objects[NAME][at:]
    with pytest.raises(ObjectDamaged, match="chunk 0"):
        await whole(store, name="prj_2/x")


async def test_more_plain_bytes_than_allowed_are_refused_and_exactly_as_many_are_not():
    inner = MemoryStore()
    store = store_of(OLD, inner=inner)
    assert (await store.put(NAME, [b"x" * 100], 100)).bytes == 100
    inner.objects.clear()
    with pytest.raises(ObjectTooLarge):
        await store.put(NAME, [b"x" * 101], 100)
    assert inner.objects == {}


async def test_a_plain_object_from_before_is_read_unless_sealing_is_required():
    inner = MemoryStore()
    inner.objects[NAME] = b'{"model": "m"}'
    assert await whole(store_of(OLD, inner=inner)) == b'{"model": "m"}'
    assert await whole(store_of(OLD, inner=inner), 9) == b' "m"}'
    with pytest.raises(NotSealed, match="tidegate encryption rotate"):
        await whole(store_of(OLD, inner=inner, required=True))


def test_no_text_is_taken_for_something_sealed():
    for length in range(1, 5):
        with pytest.raises(UnicodeDecodeError, match="invalid start byte"):
            MAGIC[:length].decode()


# --- keys -----------------------------------------------------------------------------------------


async def test_the_newest_key_seals_and_an_older_one_still_opens():
    inner, _ = await stored(b"old")
    both = store_of(OLD, NEW, inner=inner)
    await both.put("prj_1/b", [b"new"])
    ids = FileKeys([OLD, NEW]).key_ids
    assert [await both.key_id(NAME), await both.key_id("prj_1/b")] == list(ids)
    assert await whole(both) == b"old"


async def test_a_key_that_is_not_given_is_named_with_the_remedy():
    inner, _ = await stored(b"old")
    missing = FileKeys([OLD]).key_ids[0]
    with pytest.raises(KeyMissing, match=rf"{missing}.*--encryption-key"):
        await whole(store_of(NEW, inner=inner))


async def test_a_data_key_that_was_wrapped_for_one_name_is_not_unwrapped_for_another():
    keys = FileKeys([OLD])
    data_key = await keys.make(NAME)
    assert await keys.unwrap(data_key.wrapped, NAME) == data_key.plain
    with pytest.raises(ObjectDamaged, match="not wrapped for it"):
        await keys.unwrap(data_key.wrapped, "prj_2/requests/inv_1")


async def test_wrapping_anew_changes_the_header_and_not_one_byte_of_the_chunks():
    inner, _ = await stored(b"x" * 100)
    before = inner.objects[NAME]
    both = store_of(OLD, NEW, inner=inner)
    await both.rewrap(NAME)
    after = inner.objects[NAME]
    assert before != after
    assert before[parse(before, NAME)[1] :] == after[parse(after, NAME)[1] :]
    assert await whole(store_of(NEW, inner=inner)) == b"x" * 100


async def test_wrapping_anew_seals_what_was_plain():
    inner = MemoryStore()
    inner.objects[NAME] = b"plain"
    store = store_of(NEW, inner=inner, required=True)
    await store.rewrap(NAME)
    assert b"plain" not in inner.objects[NAME]
    assert await whole(store) == b"plain"


# --- short bytes ----------------------------------------------------------------------------------


@given(st.binary(max_size=300))
async def test_short_bytes_open_under_their_own_name_only(plain):
    envelopes = Envelopes(Keyring([FileKeys([OLD])]))
    sealed_bytes = await envelopes.seal(NAME, plain)
    assert await envelopes.open(NAME, sealed_bytes) == plain
    with pytest.raises(ObjectDamaged):
        await envelopes.open("prj_2/requests/inv_1", sealed_bytes)
    for damaged in (sealed_bytes[:-1], sealed_bytes + b"x", sealed_bytes[:20]):
        with pytest.raises(ObjectDamaged):
            await envelopes.open(NAME, damaged)


async def test_short_bytes_stay_plain_without_a_key_and_sealed_ones_ask_for_it():
    plain = Envelopes()
    assert await plain.seal(NAME, b"{}") == b"{}" == await plain.open(NAME, b"{}")
    sealed_bytes = await Envelopes(Keyring([FileKeys([OLD])])).seal(NAME, b"{}")
    with pytest.raises(KeyMissing, match="--encryption-key"):
        await plain.open(NAME, sealed_bytes)


async def test_short_plain_bytes_are_not_believed_where_sealing_is_required():
    strict = Envelopes(Keyring([FileKeys([OLD])]), required=True)
    with pytest.raises(NotSealed):
        await strict.open(NAME, b"{}")


async def test_short_bytes_can_be_wrapped_anew():
    old = Envelopes(Keyring([FileKeys([OLD])]))
    both = Envelopes(Keyring([FileKeys([OLD, NEW])]))
    for before in (await old.seal(NAME, b"{}"), b"{}"):
        after = await both.rewrapped(NAME, before)
        assert await Envelopes(Keyring([FileKeys([NEW])])).open(NAME, after) == b"{}"


async def test_no_key_shows_in_what_is_printed_of_one():
    data_key = await FileKeys([OLD]).make(NAME)
    assert repr(data_key.plain) not in repr(data_key)
