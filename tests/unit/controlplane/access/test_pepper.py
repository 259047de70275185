from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tidegate_controlplane.access.pepper import load_pepper
from tidegate_controlplane.errors import StartError


def test_the_pepper_is_made_once_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    pepper = load_pepper(path)
    assert len(pepper) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_pepper(path) == pepper
    assert list(tmp_path.iterdir()) == [path]


def test_those_who_start_together_get_the_same_pepper(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        peppers = list(threads.map(load_pepper, [tmp_path / "pepper"] * 16))
    assert len(set(peppers)) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_pepper_stops_the_start_and_says_what_it_means(tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    path.write_bytes(b"short")
    with pytest.raises(StartError, match="holds 5 bytes instead of 32"):
        load_pepper(path)
