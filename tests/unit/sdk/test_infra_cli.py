"""`tidegate infra`: the infrastructure package runs in a child, on this terminal."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tidegate.cli.app import app


def test_without_the_extra_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == "pulumi_aws_native" else found(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    done = CliRunner().invoke(app, ["infra", "plan"])
    assert done.exit_code == 1
    assert "pulumi_aws_native is missing" in done.stderr
    assert "pip install 'tidegate[infra]'" in done.stderr


def test_what_the_package_says_and_how_it_ends_pass_through(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from tidegate.cli import main; main()", "infra", "up"]
    done = subprocess.run(
        [*command, "--yes", "--file", "nowhere.yaml"],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: nowhere.yaml: cannot be read")
