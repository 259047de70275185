"""Which of the kernels that came along a processor gets."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from tidegate_runtime.ops import compiler, library, prebuilt

V3 = {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a file for every level."""
    monkeypatch.setattr(prebuilt, "DIRECTORY", tmp_path)
    for level in prebuilt.LEVELS:
        level.path.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("instructions", "name"),
    [
        (V4 | {"avx512_vnni", "amx_tile"}, "v4-vnni"),
        (V4, "v4"),
        (V3 | {"avx512f"}, "v3"),
    ],
)
def test_a_processor_gets_the_highest_level_that_it_has(
    brought: Path, instructions: set[str], name: str
) -> None:
    found = prebuilt.find(instructions)
    assert found is not None
    assert found.name.startswith(f"kernels-{name}-")


def test_a_processor_below_every_level_compiles_its_own(brought: Path) -> None:
    assert prebuilt.find({"sse4_2"}) is None


def test_what_was_built_from_other_sources_is_left_alone(brought: Path) -> None:
    for path in brought.iterdir():
        path.rename(path.with_name(path.name.replace(".so", "0.so")))
    assert prebuilt.find(V4) is None


def test_a_compiler_ahead_of_time_is_the_last_one_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sources := tmp_path / "native").mkdir()
    shown = '__attribute__((visibility("default")))'
    (sources / "kernels.cpp").write_text(f'extern "C" {shown} int answer() {{ return 42; }}')
    monkeypatch.setattr(compiler, "SOURCES", sources)
    monkeypatch.setattr(prebuilt, "DIRECTORY", tmp_path / "built")
    prebuilt.build_all()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(compiler, "instructions", lambda: tuple(V3))
    assert ctypes.CDLL(str(library.library())).answer() == 42
    assert len(list((tmp_path / "built").glob("*.so"))) == len(prebuilt.LEVELS)
