"""`tidegate build` and `tidegate quality`: a child process does it, and its word is passed on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tidegate.cli.app import app
from tidegate.local import artifact

QUALITY = {
    "perplexity": 14.0,
    "reference_perplexity": 13.9,
    "ratio": 1.0072,
    "agreement": 0.966,
    "mean_kl": 0.002,
}
BUILT = {
    "artifact": "/made",
    "precision": "int4",
    "weights_bytes": 2 * 1024**2,
    "quality": QUALITY,
    "quality_note": None,
}


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package that stands for the runtime: it keeps its arguments and says what it is told to."""
    package = tmp_path / "stand_in"
    package.mkdir()
    (package / "__init__.py").touch()

    def says(answer: str, status: int = 0) -> Path:
        (package / "artifact.py").write_text(
            "import json, pathlib, sys\n"
            f"pathlib.Path({str(tmp_path / 'asked')!r}).write_text(json.dumps(sys.argv[1:]))\n"
            f"print({answer!r})\n"
            f"sys.exit({status})\n"
        )
        return tmp_path / "asked"

    monkeypatch.setattr(artifact, "MODULE", "stand_in")
    monkeypatch.setattr(artifact, "NEEDED", ("stand_in",))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return says


def test_a_build_passes_its_options_on_and_shows_the_figures(child: Any) -> None:
    asked = child(json.dumps(BUILT))
    result = run("build", "/models/x.gguf", "--precision", "int4", "-o", "/made", "--no-quality")
    assert result.exit_code == 0, result.stderr
    wanted = ["build", "/models/x.gguf", "--precision", "int4", "--output", "/made"]
    assert json.loads(asked.read_text()) == [*wanted, "--no-quality", "--json"]
    for word in ("/made", "int4", "2.0 MiB", "1.0072", "96.60%"):
        assert word in result.stdout


def test_a_quality_report_is_a_table_or_json(child: Any) -> None:
    answer = {**QUALITY, "text": "t", "tokens": 511, "window": 512, "precision": "int4"}
    child(json.dumps(answer))
    assert "511 in windows of 512" in run("quality", "/made", "--text", "/t").stdout
    assert json.loads(run("quality", "/made", "--json").stdout) == answer


def test_a_refusal_is_an_error_with_its_reason(child: Any) -> None:
    child('{"error": {"reason": "QualityBound", "message": "it is worse"}}', 3)
    result = run("build", "/models/x.gguf")
    assert (result.exit_code, result.stderr) == (1, "error: it is worse (QualityBound)\n")


def test_a_child_that_was_killed_is_told(child: Any) -> None:
    child("", 9)
    result = run("quality", "/made")
    assert result.exit_code == 1
    assert "'quality' ended with status 9 before it had a result" in result.stderr


def test_without_the_runtime_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "NEEDED", ("no_such_runtime",))
    result = run("build", "/models/x.gguf")
    assert result.exit_code == 1
    assert "pip install 'tidegate[runtime]'" in result.stderr
    assert "no_such_runtime is missing" in result.stderr
