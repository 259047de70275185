"""What fault runs share: one house, and one ledger of how they went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.faults.house import House, house
from tests.faults.matrix import Ledger
from tests.faults.nursery import Nursery

_LEDGER = Ledger()
KEPT = "tidegate/faults"


@pytest.fixture(scope="session")
def fault_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    nursery = Nursery()
    try:
        with house(tmp_path_factory.mktemp("faults"), nursery) as opened:
            yield opened
    finally:
        nursery.close()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def ledger() -> Ledger:
    return _LEDGER


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if not _LEDGER.sums:
        return
    terminalreporter.section("fault matrix")
    for line in _LEDGER.lines():
        terminalreporter.write_line(line)
    if cache := getattr(config, "cache", None):  # which can be switched off
        cache.set(KEPT, {row: asdict(found) for row, found in _LEDGER.sums.items()})
