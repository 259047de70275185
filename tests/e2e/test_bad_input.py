"""What people get wrong: each time a sentence that names the value and the remedy."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from tests.e2e.platform import Platform, run_cli


def _refused(platform: Platform, *arguments: str) -> str:
    return platform.cli(*arguments, expect=1)


def _names(platform: Platform) -> set[str]:
    listed = platform.cli_json("ls")
    rows = listed["data"] if isinstance(listed, dict) else listed
    return {row["name"] for row in rows}


def _safetensors(path: Path) -> None:
    """The smallest file that is one: a header of two bytes."""
    path.write_bytes((2).to_bytes(8, "little") + b"{}")


def test_a_source_that_does_not_exist(platform: Platform):
    said = _refused(platform, "deploy", "/no/such/model", "--name", "ghost", "--mode", "serverless")
    assert "/no/such/model" in said
    assert "does not exist" in said
    assert "ghost" not in _names(platform)


def test_a_directory_that_is_not_a_model(platform: Platform, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("hello")
    said = _refused(platform, "deploy", str(tmp_path), "--name", "notes", "--mode", "serverless")
    assert "config.json" in said
    assert "notes" not in _names(platform)


def test_pickled_weights(platform: Platform, tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    said = _refused(platform, "deploy", str(tmp_path), "--name", "pickle", "--mode", "serverless")
    assert "pytorch_model.bin" in said
    assert "safetensors" in said
    assert "pickle" not in _names(platform)


def test_remote_code(platform: Platform, tmp_path: Path):
    config = {"auto_map": {"AutoModelForCausalLM": "modeling_evil.Evil"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    _safetensors(tmp_path / "model.safetensors")
    said = _refused(platform, "deploy", str(tmp_path), "--name", "remote", "--mode", "serverless")
    assert "auto_map" in said
    assert "remote" not in _names(platform)


def test_an_unknown_field_is_refused_with_the_nearest_known_one(
    platform: Platform, smollm2: str, tmp_path: Path
):
    spec = tmp_path / "deployment.yaml"
    spec.write_text(
        f"name: typo\nmodel: {smollm2}\nmode: serverless\nscaling: {{max_replica: 2}}\n"
    )
    said = _refused(platform, "apply", "-f", str(spec))
    assert "max_replica" in said
    assert "max_replicas" in said
    assert "typo" not in _names(platform)


def test_an_impossible_combination_is_refused_with_the_reason(platform: Platform, smollm2: str):
    said = _refused(
        platform, "deploy", smollm2, "--name", "zero", "--mode", "realtime", "--min", "0"
    )
    assert "min_replicas" in said
    assert "serverless" in said


def test_a_feature_that_this_version_lacks_is_refused_by_name(platform: Platform, smollm2: str):
    said = _refused(
        platform, "deploy", smollm2, "--name", "x", "--mode", "serverless", "--set", "slo.ttft_ms=9"
    )
    assert "slo.ttft_ms" in said
    assert "remove it" in said


def test_a_name_that_another_mode_has_taken(platform: Platform, realtime: str, smollm2: str):
    said = _refused(platform, "deploy", smollm2, "--name", realtime, "--mode", "batch")
    assert realtime in said
    assert "delete" in said


def test_a_port_that_is_taken(platform: Platform, tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_cli(
            "up",
            "--data",
            str(tmp_path / "data"),
            "--port",
            str(port),
            "--detach",
            env={**platform.environment, "XDG_CONFIG_HOME": str(tmp_path / "config")},
        )
    assert done.returncode != 0
    assert str(port) in done.stdout + done.stderr
    assert "--port" in done.stdout + done.stderr
    assert not (tmp_path / "data" / "connection.json").exists()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/invocations", "/v1/batches"])
def test_a_body_that_is_not_json(platform: Platform, path: str):
    with platform.http() as http:
        answer = http.post(path, content=b"{not json")
    assert answer.status_code == 400
    assert "not JSON" in answer.json()["error"]["message"]


def test_a_declaration_that_is_not_json(platform: Platform):
    with platform.http() as http:
        answer = http.put("/api/v1/deployments/x", content=b"{not json")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_batch_file_that_does_not_exist(platform: Platform, realtime: str):
    said = _refused(platform, "batch", "run", realtime, "/no/such/file.jsonl")
    assert "/no/such/file.jsonl" in said
