"""A replica's log: lines from an offset, and no more of the disk than it may take."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tidegate_controlplane.provision.log import LINE_BYTES, bound, read_lines

KEPT = 64 * 1024


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def fill(log: Path, lines: range) -> None:
    with log.open("ab") as file:
        file.writelines(b"line %06d %s\n" % (number, b"x" * 85) for number in lines)


def texts(log: Path, offset: int = 0, limit: int = 10_000) -> list[str]:
    return [line.text for line in read_lines(log, "rep_1", offset, limit)]


def taken(log: Path) -> int:
    return log.stat().st_blocks * 512


@pytest.fixture(scope="session")
def _holes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where the file system cannot give back a file's beginning."""
    probe = tmp_path_factory.mktemp("holes") / "probe"
    probe.write_bytes(bytes(1 << 20))
    punch = ["fallocate", "--punch-hole", "--offset", "0", "--length", "524288", str(probe)]
    if subprocess.run(punch, capture_output=True, check=False).returncode:
        pytest.skip("this file system makes no holes")


def test_lines_go_on_from_the_offset_of_the_last_one(log: Path) -> None:
    fill(log, range(5))
    first = read_lines(log, "rep_1", 0, 2)
    assert [line.text[:11] for line in first] == ["line 000000", "line 000001"]
    rest = texts(log, first[-1].offset)
    assert [text[:11] for text in rest] == ["line 000002", "line 000003", "line 000004"]


def test_a_line_without_its_end_waits_for_it_unless_it_is_very_long(log: Path) -> None:
    log.write_bytes(b"whole\nhal")
    assert texts(log) == ["whole"]
    log.write_bytes(b"y" * (LINE_BYTES + 1))
    assert texts(log) == ["y" * LINE_BYTES]


def test_a_log_that_is_absent_or_read_to_its_end_has_no_lines(log: Path) -> None:
    assert texts(log) == []
    fill(log, range(2))
    assert texts(log, log.stat().st_size) == []


def test_a_log_within_its_bound_is_left_alone(log: Path) -> None:
    fill(log, range(1000))
    bound(log, KEPT)
    assert len(texts(log)) == 1000


@pytest.mark.usefixtures("_holes")
def test_a_log_that_grew_too_large_gives_its_beginning_back_and_keeps_its_end(log: Path) -> None:
    fill(log, range(5000))
    size = log.stat().st_size
    bound(log, KEPT)
    assert log.stat().st_size == size
    assert taken(log) <= KEPT + 2 * 4096
    kept = texts(log)
    assert KEPT <= sum(len(text) + 1 for text in kept) + 98 < KEPT + 3 * 4096
    assert kept[-1].startswith("line 004999")
    assert all(text.startswith("line ") for text in kept), "no line is cut in two"


@pytest.mark.usefixtures("_holes")
def test_offsets_into_a_bounded_log_mean_what_they_did(log: Path) -> None:
    fill(log, range(5000))
    seen = read_lines(log, "rep_1", 0, 4990)[-1].offset
    bound(log, KEPT)
    assert [text[:11] for text in texts(log, seen)] == [f"line {n:06d}" for n in range(4990, 5000)]


@pytest.mark.usefixtures("_holes")
def test_an_appender_goes_on_while_its_log_is_bounded(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for start in range(0, 20_000, 1000):
            for number in range(start, start + 1000):
                os.write(descriptor, b"line %06d %s\n" % (number, b"x" * 85))
            bound(log, KEPT)
            assert taken(log) <= 2 * KEPT + 4096
    finally:
        os.close(descriptor)
    assert texts(log)[-1].startswith("line 019999")
