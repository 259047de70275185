"""Records in memory and on disk."""

import hashlib
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from tidegate_runtime.engine.block_manager import BlockHash
from tidegate_runtime.spill.disk import RETRY_S, DiskTier
from tidegate_runtime.spill.memory import MemoryTier
from tidegate_runtime.spill.store import Found, SpillStore
from tidegate_runtime.spill.worth import Worth

RECORD = 1000
MIB = 1 << 20


def key(number: int) -> BlockHash:
    return BlockHash(hashlib.blake2b(str(number).encode(), digest_size=16).digest())


def record(number: int) -> bytes:
    return bytes([number % 256]) * RECORD


def files(root: Path) -> list[Path]:
    return sorted(root.glob("*/??/*"))


def test_memory_keeps_what_was_used_last_within_its_budget() -> None:
    tier = MemoryTier(3 * RECORD)
    for number in range(3):
        tier.save(key(number), record(number))
    assert tier.load(key(0)) == record(0)
    tier.save(key(3), record(3))
    assert [number for number in range(4) if key(number) in tier] == [0, 2, 3]
    assert tier.used_bytes == 3 * RECORD


def test_a_record_outlives_its_writer_for_its_owner_only(tmp_path: Path) -> None:
    writer = DiskTier(tmp_path / "kv", "a", MIB)
    assert writer.save(key(1), record(1))
    writer.close()
    reader = DiskTier(tmp_path / "kv", "a", MIB)
    assert reader.load(key(1)) == record(1)
    assert reader.load(key(2)) is None
    (file,) = files(tmp_path / "kv")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert all(stat.S_IMODE(folder.stat().st_mode) == 0o700 for folder in list(file.parents)[:3])
    reader.close()


def test_two_replicas_share_what_either_writes(tmp_path: Path) -> None:
    first, second = (DiskTier(tmp_path, "a", MIB) for _ in range(2))
    first.save(key(1), record(1))
    assert key(1) in second
    assert second.load(key(1)) == record(1)
    first.close()
    second.close()


def test_what_was_made_otherwise_is_never_found(tmp_path: Path) -> None:
    ours, theirs = DiskTier(tmp_path, "a", MIB), DiskTier(tmp_path, "b", MIB)
    ours.save(key(1), record(1))
    assert theirs.load(key(1)) is None
    ours.close()
    theirs.close()


@pytest.mark.parametrize("damage", ["torn", "flipped", "swapped", "empty"])
def test_a_damaged_file_is_removed_and_never_believed(tmp_path: Path, damage: str) -> None:
    tier = DiskTier(tmp_path, "a", MIB)
    tier.save(key(1), record(1))
    (file,) = files(tmp_path)
    raw = bytearray(file.read_bytes())
    if damage == "torn":
        file.write_bytes(raw[:-1])
    elif damage == "flipped":
        raw[500] ^= 1
        file.write_bytes(raw)
    elif damage == "swapped":
        tier.save(key(2), record(2))
        file.write_bytes(next(other for other in files(tmp_path) if other != file).read_bytes())
    else:
        file.write_bytes(b"")
    assert tier.load(key(1)) is None
    assert not file.exists()
    tier.close()


def test_the_disk_keeps_what_was_used_last_within_its_budget(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path, "a", 32 * RECORD)
    for number in range(60):
        tier.save(key(number), record(number))
        path = tier._path(key(number))
        os.utime(path, (number, number))
        if number >= 5:
            assert tier.load(key(5)) == record(5)  # which makes it the one used last
    assert sum(file.stat().st_size for file in files(tmp_path)) <= 32 * RECORD
    assert key(5) in tier
    assert key(59) in tier
    assert key(6) not in tier
    tier.close()


def test_models_that_are_served_no_more_make_room(tmp_path: Path) -> None:
    served, ended = DiskTier(tmp_path, "served", MIB), DiskTier(tmp_path, "ended", MIB)
    for tier in (served, ended):
        tier.save(key(1), record(1))
        os.utime(tier._path(key(1)), (1, 1))
    ended.close()
    ours = DiskTier(tmp_path, "ours", RECORD)
    assert key(1) in served
    assert key(1) not in ended
    ours.close()
    served.close()


def test_what_a_killed_writer_left_half_done_is_removed_once_it_is_old(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path, "a", MIB)
    tier.save(key(1), record(1))
    old = files(tmp_path)[0].with_suffix(".123.partial")
    old.write_bytes(b"half")
    fresh = old.with_suffix(".124.partial")
    fresh.write_bytes(b"half")
    os.utime(old, (1, 1))
    tier.trim()
    assert (old.exists(), fresh.exists()) == (False, True)
    assert key(1) in tier
    tier.close()


def test_a_full_disk_is_left_alone_for_a_while_and_then_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    tier = DiskTier(tmp_path, "a", MIB, clock=lambda: now)
    full = SimpleNamespace(f_blocks=1000, f_frsize=4096, f_bavail=50)
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda path: full)
        assert not tier.save(key(1), record(1))
        assert not tier.save(key(2), record(2))
    assert len([line for line in caplog.messages if "not spilled" in line]) == 1
    assert not tier.save(key(1), record(1))
    now = RETRY_S
    assert tier.save(key(1), record(1))
    assert tier.load(key(1)) == record(1)
    tier.close()


def test_a_store_finds_a_chain_up_to_its_first_gap(tmp_path: Path) -> None:
    memory, disk = MemoryTier(2 * RECORD), DiskTier(tmp_path, "a", MIB)
    store = SpillStore(RECORD, memory, disk)
    for number in (0, 1, 3):
        assert store.save(key(number), record(number)) == ["memory", "disk"]
    assert store.find([key(number) for number in range(4)]) == Found(memory=1, disk=1)
    assert store.load(key(0)) == (record(0), "disk")
    assert store.load(key(0)) == (record(0), "memory")
    store.drop(key(0))
    assert store.load(key(0)) is None
    store.close()


def test_a_record_of_another_size_is_refused(tmp_path: Path) -> None:
    disk = DiskTier(tmp_path, "a", MIB)
    disk.save(key(0), b"short")
    store = SpillStore(RECORD, None, disk)
    assert store.load(key(0)) is None
    assert key(0) not in disk
    store.close()


def test_blocks_come_back_only_where_that_is_faster_than_computing_them() -> None:
    worth = Worth(record_bytes=1_000_000)
    assert worth.is_worth(Found(disk=4))
    worth.computed(512, 0.512)  # a millisecond a token
    worth.loaded("disk", 10, 0.05)  # 5 ms a block, where computing it takes 16 ms
    assert worth.is_worth(Found(disk=4))
    assert not worth.is_worth(Found())
    for _ in range(20):
        worth.loaded("disk", 10, 5.0)
    assert not worth.is_worth(Found(disk=4))
    assert worth.is_worth(Found(memory=4))
    assert any(worth.is_worth(Found(disk=4)) for _ in range(100)), "it is tried again in the end"
