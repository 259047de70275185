from pathlib import Path

import pytest

from tidegate_runtime.artifact.memory import available_bytes, check_weights_fit
from tidegate_runtime.errors import ReplicaUnavailable


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
    return path


def test_without_a_cgroup_the_machine_s_word_counts(meminfo: Path, tmp_path: Path) -> None:
    assert available_bytes(meminfo, tmp_path / "none") == 4000 * 1024


@pytest.mark.parametrize(("limit", "free"), [("3000000", 2_000_000), ("max", 4000 * 1024)])
def test_a_tighter_cgroup_limit_counts(
    meminfo: Path, tmp_path: Path, limit: str, free: int
) -> None:
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert available_bytes(meminfo, tmp_path) == free


def test_weights_larger_than_memory_are_refused_before_they_are_read(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(1 << 43)
    with pytest.raises(ReplicaUnavailable, match="GiB") as refused:
        check_weights_fit(tmp_path)
    assert refused.value.reason == "OutOfMemory"
