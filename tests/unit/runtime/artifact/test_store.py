"""The cache of artifacts: made once, kept while used, the longest unused goes first."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from tests.unit.runtime.artifact.conftest import fill_artifact

from tidegate_runtime.artifact.store import ArtifactStore, artifact_key, hold
from tidegate_runtime.errors import ModelRefused


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def put(store: ArtifactStore, key: str, *, used_s: float = 1.0, size: int = 10_000) -> Path:
    path = store.publish(key, lambda directory: fill_artifact(directory, b"w" * size))
    os.utime(path / "manifest.json", (used_s, used_s))
    return path


def keys(store: ArtifactStore) -> list[str]:
    return [item.key for item in store.items()]


def test_the_key_tells_models_and_precisions_apart() -> None:
    made = {artifact_key(digest, precision) for digest in "ab" for precision in ("int4", "int8")}
    assert len(made) == 4
    assert artifact_key("a", "int4") in made


def test_what_is_there_is_not_made_again(store: ArtifactStore) -> None:
    put(store, "one")
    store.publish("one", lambda directory: pytest.fail("made twice"))


def test_many_at_once_make_it_once(store: ArtifactStore) -> None:
    made: list[Path] = []

    def fill(directory: Path) -> None:
        made.append(directory)
        fill_artifact(directory)

    threads = [threading.Thread(target=store.publish, args=("one", fill)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_failed_build_leaves_nothing(store: ArtifactStore) -> None:
    def fill(directory: Path) -> None:
        (directory / "half").touch()
        raise ModelRefused("QualityBound", "too bad")

    with pytest.raises(ModelRefused):
        store.publish("one", fill)
    assert store.open("one") is None
    assert not list((store.cache_dir / "artifacts").glob("one*[!k]"))


def test_the_longest_unused_goes_first(store: ArtifactStore) -> None:
    for age, key in enumerate(("old", "older", "oldest")):
        put(store, key, used_s=100.0 - age)
    size = store.items()[0].size_bytes
    assert [item.key for item in store.prune(limit_bytes=2 * size)] == ["oldest"]
    assert keys(store) == ["old", "older"]


def test_opening_makes_it_the_last_used(store: ArtifactStore) -> None:
    for age, key in enumerate(("old", "older")):
        put(store, key, used_s=100.0 - age)
    held = store.open("older")
    assert held is not None
    held.close()
    assert keys(store) == ["older", "old"]


def test_what_is_held_stays_until_it_is_let_go(store: ArtifactStore) -> None:
    put(store, "one")
    held = store.open("one")
    assert held is not None
    assert [item.held for item in store.items()] == [True]
    assert store.prune(limit_bytes=0) == []
    held.close()
    assert [item.key for item in store.prune(limit_bytes=0)] == ["one"]
    assert store.open("one") is None


def test_a_new_artifact_makes_room_for_itself_but_stays(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path, limit_bytes=1)
    put(store, "one")
    assert keys(store) == ["one"]
    put(store, "two")
    assert keys(store) == ["two"]


def test_a_damaged_one_is_told_and_made_again(
    store: ArtifactStore, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(store, "one")
    (path / "weights.safetensors").write_bytes(b"x" * 10_000)
    assert store.open("one") is None
    assert "weights.safetensors" in caplog.text
    put(store, "one")
    held = store.open("one")
    assert held is not None
    held.close()


def test_a_damaged_one_is_made_again_though_another_replica_holds_it(store: ArtifactStore) -> None:
    path = put(store, "one")
    other = hold(path)
    (path / "weights.safetensors").write_bytes(b"x" * 10_000)
    assert store.open("one") is None
    put(store, "one")
    whole = store.open("one")
    assert whole is not None
    whole.close()
    other.close()


def test_files_of_an_unfinished_removal_are_swept(store: ArtifactStore) -> None:
    put(store, "one")
    leftover = store.cache_dir / "artifacts" / "gone.1.doomed"
    leftover.mkdir()
    store.prune()
    assert not leftover.exists()
    assert keys(store) == ["one"]
