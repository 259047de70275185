"""Directories in pieces: whole or not there, whatever the order and the harm on the way."""

from __future__ import annotations

import asyncio
import json
import os
from hashlib import sha256
from pathlib import Path

import pytest
from tests.tiny_model import write_tiny_model

from tidegate.local.model_files import local_digest
from tidegate_controlplane.provision.ray.transfer import (
    PIECE_BYTES,
    Arrival,
    Damaged,
    check_artifact,
    check_source,
    forget_arrivals,
    items_of,
    send,
    source_items,
)


def nothing_wrong(_: Path) -> None:
    """Any directory will do."""


async def copied(root: Path, names: list[str], arrival: Arrival, *, reverse: bool = False) -> int:
    """Send to an arrival that takes its pieces one by one."""
    pieces: list[tuple[str, int, bytes]] = []

    def submit(name: str, offset: int, content: bytes) -> asyncio.Future[None]:
        pieces.append((name, offset, content))
        done: asyncio.Future[None] = loop.create_future()
        loop.call_soon_threadsafe(done.set_result, None)
        return done

    loop = asyncio.get_running_loop()
    sent = await send(root, items_of(root, names), submit)
    for piece in sorted(pieces, reverse=reverse):
        arrival.write(*piece)
    return sent


@pytest.mark.parametrize("reverse", [False, True])
async def test_pieces_in_any_order_make_the_same_files_with_their_times(
    tmp_path: Path, reverse: bool
) -> None:
    root = tmp_path / "here"
    (root / "deep").mkdir(parents=True)
    contents = {"large": os.urandom(2 * PIECE_BYTES + 7), "deep/small": b"x", "empty": b""}
    for name, content in contents.items():
        (root / name).write_bytes(content)
        os.utime(root / name, ns=(5, 1_234_567_890_123_456_789))
    arrival = Arrival(tmp_path / "there", "key", items_of(root, list(contents)))
    assert await copied(root, list(contents), arrival, reverse=reverse) == 2 * PIECE_BYTES + 8
    there = arrival.finish(nothing_wrong)
    assert {name: (there / name).read_bytes() for name in contents} == contents
    assert {(there / name).stat().st_mtime_ns for name in contents} == {1_234_567_890_123_456_789}


def test_what_is_damaged_never_gets_its_name(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    items = source_items(model)
    arrival = Arrival(tmp_path / "there", "key", items)
    for item in items:
        arrival.write(item.name, 0, (model / item.name).read_bytes()[:-1])
    with pytest.raises(Damaged, match="arrived with the digest"):
        arrival.finish(lambda path: check_source(path, local_digest(model)))
    assert list((tmp_path / "there").iterdir()) == []


def test_what_another_has_put_there_meanwhile_stays(tmp_path: Path) -> None:
    arrival = Arrival(tmp_path, "key", [])
    (tmp_path / "key.arriving").mkdir()
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "theirs").touch()
    assert [each.name for each in arrival.finish(nothing_wrong).iterdir()] == ["theirs"]
    assert not (tmp_path / "key.arriving").exists()


def test_half_arrived_directories_are_forgotten_at_the_start(tmp_path: Path) -> None:
    for name in ("whole", "half.arriving"):
        (tmp_path / "artifacts" / name).mkdir(parents=True)
    forget_arrivals(tmp_path)
    assert [each.name for each in (tmp_path / "artifacts").iterdir()] == ["whole"]


def artifact(path: Path, **manifest: object) -> Path:
    path.mkdir()
    (path / "weights").write_bytes(b"weights")
    entry = {"bytes": 7, "sha256": sha256(b"weights").hexdigest()}
    source = {"digest": "sha256:d"}
    whole = {"source": source, "precision": "int8", "files": {"weights": entry}} | manifest
    (path / "manifest.json").write_text(json.dumps(whole))
    return path


def test_a_whole_artifact_of_the_model_is_taken(tmp_path: Path) -> None:
    check_artifact(artifact(tmp_path / "good"), "sha256:d", "int8")


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        ({"source": {"digest": "sha256:e"}}, "built from sha256:e in int8"),
        ({"precision": "int4"}, "built from sha256:d in int4"),
        ({"files": {"weights": {"sha256": "0"}}}, "weights has the digest"),
        ({"files": {"gone": {"sha256": "0"}}}, "gone: No such file"),
        ({"files": None}, "no readable manifest"),
    ],
)
def test_an_artifact_that_is_another_or_broken_is_not(
    tmp_path: Path, manifest: dict[str, object], why: str
) -> None:
    with pytest.raises(Damaged, match=why):
        check_artifact(artifact(tmp_path / "bad", **manifest), "sha256:d", "int8")
