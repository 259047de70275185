"""`tidegate build`, `quality`, `compress`: a child process does it, and its word is passed on."""

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

    def says(answer: str, status: int = 0, told: str = "") -> Path:
        (package / "artifact.py").write_text(
            "import json, pathlib, sys\n"
            f"pathlib.Path({str(tmp_path / 'asked')!r}).write_text(json.dumps(sys.argv[1:]))\n"
            f"sys.stderr.write({told!r})\n"
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


ROW = {
    "name": "gptq",
    "precision": "int4",
    "weights_bytes": 2 * 1024**2,
    "memory_bytes": 3 * 1024**2,
    "decode_tokens_per_s": 81.25,
    "prefill_tokens_per_s": 900.4,
    **QUALITY,
}
SOURCE = {**dict.fromkeys(ROW), "name": "source", "precision": "16 bits", "weights_bytes": 4}
COMPRESSED = {
    "artifact": "/made",
    "rows": [{**SOURCE, "perplexity": 13.9}, ROW],
    "text": "prose",
    "tokens": 511,
}


def test_a_smaller_model_is_ordered_by_its_options_and_shown_beside_its_source(child: Any) -> None:
    told = '{"stage": "layers", "done": 3, "total": 30}\nreading /models/x\n'
    asked = child(json.dumps(COMPRESSED), told=told)
    result = run(
        *("compress", "/models/x", "--method", "wanda", "--method", "gptq", "--precision", "int4"),
        *("-o", "/made", "--text", "/t", "--sparsity", "2:4", "--act-order"),
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(asked.read_text()) == [
        *("compress", "/models/x", "--method", "wanda", "--method", "gptq"),
        *("--precision", "int4", "--output", "/made", "--text", "/t", "--window", "512"),
        *("--windows", "32", "--sparsity", "2:4", "--quality-windows", "8", "--act-order"),
        *("--progress", "--json"),
    ]
    for line in ("layers: 3 of 30\n", "reading /models/x\n", "/made holds this as quality.json"):
        assert line in result.stderr
    for word in ("source", "16 bits", "13.900", "2.0 MiB", "1.0072", "96.60%", "81.2 tok/s"):
        assert word in result.stdout
    assert "None" not in result.stdout


def test_a_smaller_model_s_report_is_json_without_its_progress(child: Any) -> None:
    child(json.dumps(COMPRESSED), told='{"stage": "layers", "done": 3, "total": 30}\n')
    made = ("compress", "/x", "--method", "rtn", "--precision", "int4", "-o", "/made", "--json")
    result = run(*made)
    assert json.loads(result.stdout) == COMPRESSED
    assert result.stderr == ""


def test_heads_are_ordered_by_their_options_and_shown_beside_untrained_ones(
    child: Any, tmp_path: Path
) -> None:
    answer = {
        "heads": "/made",
        "method": "early_exit",
        "acceptance": [0.5125],
        "untrained_acceptance": [0.0625],
    }
    asked = child(json.dumps(answer))
    (tmp_path / "stand_in" / "artifact.py").rename(tmp_path / "stand_in" / "distill.py")
    order = ("distill", "/models/x", "--text", "/t", "-o", "/made", "--method", "early-exit")
    result = run(*order, "--exit-layer", "6", "--epochs", "2")
    assert result.exit_code == 0, result.stderr
    assert json.loads(asked.read_text()) == [
        *("/models/x", "--text", "/t", "--output", "/made", "--method", "early-exit"),
        *("--exit-layer", "6", "--levels", "3", "--precision", "auto", "--tokens", "65536"),
        *("--shortlist", "4096", "--epochs", "2", "--json"),
    ]
    for word in ("first 1", "6.2%", "51.2%"):
        assert word in result.stdout
    assert "runtime.speculation.method early_exit, heads /made" in result.stderr


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
