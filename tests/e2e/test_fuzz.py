"""Whatever is sent, the OpenAPI document says what may come back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.platform import Platform

SCHEMATHESIS = str(Path(sys.executable).parent / "schemathesis")
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance"
)


@pytest.mark.parametrize("examples", [3, pytest.param(30, marks=pytest.mark.soak)])
def test_fuzzing_finds_no_server_error_and_no_undocumented_status(
    fragile: Platform, smollm2: str, tmp_path: Path, examples: int
):
    """A platform of its own, since fuzzing learns names from answers and deletes what it finds."""
    fragile.cli("deploy", smollm2, "--name", "fuzzed", "--mode", "serverless", "--wait")
    done = subprocess.run(
        [
            SCHEMATHESIS,
            "run",
            f"{fragile.url}/docs/openapi.json",
            "--header",
            f"Authorization: Bearer {fragile.api_key}",
            "--exclude-path",
            "/api/v1/offers/refresh",  # which asks AWS, and cannot do so here
            "--checks",
            CHECKS,
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            str(examples),
            "--seed",
            "7",
            "--request-timeout",
            "60",
            "--no-color",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    log = (fragile.data / "controlplane.log").read_text()
    assert "Traceback" not in log, log[log.index("Traceback") - 2000 :][:6000]
