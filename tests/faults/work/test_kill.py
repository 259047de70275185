"""kill -9 of the process that runs a batch, again and again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sqlmodel import Session

from tidegate_controlplane.store import leases
from tidegate_controlplane.store.sqlite import SqliteDatabase

SCRIPT = Path(__file__).parent / "batch_process.py"
CAPACITY = 4
"""Of the replica."""


def run(data_dir, lines, *kill_at):
    """How the process ended."""
    told = [str(each) for each in (lines, *kill_at)]
    command = [sys.executable, "-W", "error", str(SCRIPT), str(data_dir), *told]
    return subprocess.run(command, timeout=300, check=False).returncode


def leased(data_dir):
    """Lines that the dead process had claimed and not finished."""
    db = SqliteDatabase(data_dir / "tidegate.db")
    try:
        with Session(db.writer) as session:
            return len(leases.leased(session))
    finally:
        db.close()


def asked(data_dir):
    return (data_dir / "asked").read_text().splitlines()


@pytest.mark.parametrize(
    ("lines", "kills_at"),
    [
        (50, (1, 20, 41)),
        pytest.param(2000, (1, 300, 800, 1400, 1990), marks=pytest.mark.soak),
    ],
)
def test_a_batch_whose_process_is_killed_again_and_again_answers_each_custom_id_once(
    tmp_path, lines, kills_at
):
    """`kills_at`: requests that replicas were asked when the process is killed."""
    in_flight = []
    for kill_at in kills_at:
        assert run(tmp_path, lines, kill_at) == -signal.SIGKILL
        in_flight.append(leased(tmp_path))

    assert run(tmp_path, lines) == 0
    batch = json.loads((tmp_path / "batch.json").read_text())
    output = [json.loads(line) for line in (tmp_path / "output.jsonl").read_text().splitlines()]
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": lines, "completed": lines, "failed": 0}
    assert [line["custom_id"] for line in output] == [f"line-{n}" for n in range(lines)]
    bodies = [line["response"]["body"]["text"] for line in output]
    assert bodies == [f"echo prompt {n}" for n in range(lines)]
    repeated = len(asked(tmp_path)) - lines
    assert 0 <= repeated <= sum(in_flight), "a kill costs at most the lines in flight"
    assert max(in_flight) <= 2 * CAPACITY, "those that run, and those whose answer is on its way"
