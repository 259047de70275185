"""kill -9 of the process that runs a batch, again and again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = Path(__file__).parent / "batch_process.py"
LINES = 120
KILLS_AT = (1, 30, 60)
"""Requests that replicas were asked when the process is killed."""


def begin(data_dir):
    return subprocess.Popen([sys.executable, "-W", "error", str(SCRIPT), str(data_dir)])


def asked(data_dir):
    notes = data_dir / "asked"
    return notes.read_text().splitlines() if notes.exists() else []


def test_a_batch_whose_process_is_killed_again_and_again_answers_each_custom_id_once(tmp_path):
    for kill_at in KILLS_AT:
        process = begin(tmp_path)
        deadline = time.monotonic() + 60
        while len(asked(tmp_path)) < kill_at:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    assert begin(tmp_path).wait(timeout=60) == 0
    batch = json.loads((tmp_path / "batch.json").read_text())
    output = [json.loads(line) for line in (tmp_path / "output.jsonl").read_text().splitlines()]
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
    assert [line["custom_id"] for line in output] == [f"line-{n}" for n in range(LINES)]
    bodies = [line["response"]["body"]["text"] for line in output]
    assert bodies == [f"echo prompt {n}" for n in range(LINES)]
    repeated = len(asked(tmp_path)) - LINES
    assert 0 <= repeated <= 4 * len(KILLS_AT), "a kill costs at most the lines in flight"
