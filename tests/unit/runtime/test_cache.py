import threading
import time
from pathlib import Path

import pytest

from tidegate_runtime.artifact.cache import publish_once


def test_two_at_once_fill_once(tmp_path: Path) -> None:
    fills = []

    def fill(directory: Path) -> None:
        fills.append(directory)
        time.sleep(0.1)
        (directory / "file").write_text("whole")

    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(publish_once(tmp_path, "a/b", fill)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fills) == 1
    assert {path.joinpath("file").read_text() for path in found} == {"whole"}


def test_a_fill_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").write_text("half")
        raise OSError("no route to host")

    with pytest.raises(OSError, match="no route"):
        publish_once(tmp_path, "key", fail)
    assert not list(tmp_path.rglob("half"))
    assert not (tmp_path / "key").exists()


def test_what_a_killed_process_left_is_never_used(tmp_path: Path) -> None:
    (tmp_path / "key.partial").mkdir()
    (tmp_path / "key.partial" / "half").write_text("half")
    made = publish_once(tmp_path, "key", lambda directory: None)
    assert list(made.iterdir()) == []
