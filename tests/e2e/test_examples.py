"""The examples run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.platform import Platform

from tidegate.spec import parse

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize("name", ["realtime", "serverless", "async", "batch", "openai_client"])
def test_an_example_answers_paris_and_leaves_nothing_behind(platform: Platform, name: str):
    done = _python(EXAMPLES / f"{name}.py", platform)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Paris" in done.stdout
    assert "example-" not in platform.cli("ls")


def test_the_declared_example_is_accepted_with_a_real_model(
    platform: Platform, smollm2: str, tmp_path: Path
):
    text = (EXAMPLES / "deployment.yaml").read_text()
    assert parse(text).mode == "serverless"
    local = tmp_path / "deployment.yaml"
    local.write_text(re.sub(r"^model: \S+", f"model: {smollm2}", text, flags=re.MULTILINE))
    plan = platform.cli_json("plan", "-f", str(local))
    planned = plan[0] if isinstance(plan, list) else plan
    assert planned["action"] == "create"
    assert planned["plan"]["context_tokens"] == 4096


def test_the_sdk_example_of_the_readme_runs(platform: Platform, tmp_path: Path):
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    script = tmp_path / "readme.py"
    script.write_text(block[1])
    assert len(block[1].splitlines()) <= 20
    done = _python(script, platform)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Paris" in done.stdout


def _python(script: Path, platform: Platform) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script)],
        env=platform.environment,
        text=True,
        capture_output=True,
        timeout=300,
    )
