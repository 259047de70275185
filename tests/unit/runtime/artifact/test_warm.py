"""The shelf: models that need no second look, until their files are touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.runtime.artifact.conftest import fill_artifact

from tidegate_runtime.artifact import store as store_module
from tidegate_runtime.artifact.open import open_artifact
from tidegate_runtime.artifact.store import hold
from tidegate_runtime.artifact.warm import Shelf, WarmModel, fingerprint, manifest_sha256
from tidegate_runtime.errors import ModelRefused
from tidegate_runtime.grammar.tables import NO_TABLES


def an_artifact(path: Path) -> Path:
    path.mkdir()
    fill_artifact(path)
    return path


def warm(root: Path, memory_bytes: int = 10) -> WarmModel:
    seen = fingerprint(root), manifest_sha256(root)
    named = f"tokenizer of {root.name}"
    return WarmModel(open_artifact(root), named, NO_TABLES, *seen, memory_bytes)


def test_what_was_put_is_found_as_long_as_its_files_stay(tmp_path: Path) -> None:
    root = an_artifact(tmp_path / "a")
    shelf = Shelf(100)
    assert shelf.find(root) is None
    shelf.put(warm(root))
    found = shelf.find(root)
    assert found is not None
    assert found.tokenizer == "tokenizer of a"


@pytest.mark.parametrize("change", ["same bytes", "new file", "removed", "manifest"])
def test_a_touched_file_takes_a_model_from_the_shelf(tmp_path: Path, change: str) -> None:
    root = an_artifact(tmp_path / "a")
    shelf = Shelf(100)
    shelf.put(warm(root))
    weights = root / "weights.safetensors"
    state = weights.stat()
    if change == "same bytes":
        weights.write_bytes(weights.read_bytes())
        os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    elif change == "new file":
        (root / "more").touch()
    elif change == "removed":
        weights.unlink()
    else:
        manifest = root / "manifest.json"
        manifest.write_text(manifest.read_text() + " ")
    assert shelf.find(root) is None
    assert len(shelf) == 0


def test_the_time_of_last_use_does_not_count_as_a_touch(tmp_path: Path) -> None:
    root = an_artifact(tmp_path / "a")
    shelf = Shelf(100)
    shelf.put(warm(root))
    hold(root).close()
    assert shelf.find(root) is not None


def test_the_model_unused_for_longest_makes_room(tmp_path: Path) -> None:
    roots = [an_artifact(tmp_path / name) for name in "abc"]
    shelf = Shelf(25)
    shelf.put(warm(roots[0]))
    shelf.put(warm(roots[1]))
    shelf.find(roots[0])
    shelf.put(warm(roots[2]))
    assert [shelf.find(root) is not None for root in roots] == [True, False, True]


def test_a_model_that_is_larger_than_the_shelf_is_not_kept_and_displaces_nobody(
    tmp_path: Path,
) -> None:
    small, large = (an_artifact(tmp_path / name) for name in "ab")
    shelf = Shelf(25)
    shelf.put(warm(small))
    shelf.put(warm(large, memory_bytes=26))
    assert shelf.find(large) is None
    assert shelf.find(small) is not None


def test_a_warm_artifact_is_held_without_reading_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = an_artifact(tmp_path / "a")
    shelf = Shelf(100)
    shelf.put(warm(root))
    monkeypatch.setattr(store_module, "open_artifact", lambda path: pytest.fail("read again"))
    held = hold(root, shelf)
    assert held.artifact.root == root
    held.close()


def test_only_of_an_artifact_that_was_found_here_more_is_known(tmp_path: Path) -> None:
    root = an_artifact(tmp_path / "a")
    shelf = Shelf(100)
    shelf.put(warm(root))
    found, read_again = hold(root, shelf), hold(root)
    known = shelf.model(found.artifact)
    assert known is not None
    assert known.tokenizer == "tokenizer of a"
    assert shelf.model(read_again.artifact) is None
    found.close()
    read_again.close()


def test_a_damaged_one_is_read_and_refused(tmp_path: Path) -> None:
    root = an_artifact(tmp_path / "a")
    shelf = Shelf(100)
    shelf.put(warm(root))
    weights = root / "weights.safetensors"
    weights.write_bytes(b"x" * weights.stat().st_size)
    with pytest.raises(ModelRefused, match="is damaged"):
        hold(root, shelf)
