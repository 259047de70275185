"""Faults at the kernel's door, where nobody named a place: by strace."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.faults.checker import Verdict, check
from tests.faults.client import Client
from tests.faults.history import History
from tests.faults.house import House, await_ready, key_of, url_of, work_through
from tests.faults.replica import answer_to

SYNCS, WRITES, RENAMES = "fsync,fdatasync", "pwrite64", "rename"
KILLS = [
    *((SYNCS, n) for n in (1, 2, 3, 5, 8, 13, 21)),
    *((WRITES, n) for n in (1, 5, 17, 40, 90)),
    *((RENAMES, n) for n in (1, 2)),
]
"""Counted in each thread by itself."""


@contextlib.contextmanager
def traced(pid: int, inject: str, log: Path):
    """strace on a process, as soon as it holds it."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    calls = inject.partition(":")[0]
    command = ["strace", "-f", "-o", str(log), "-e", f"trace={calls}", "-e", f"inject={inject}"]
    tracer = subprocess.Popen([*command, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr
        said = tracer.stderr.readline()
        if "attached" not in said:
            pytest.skip(f"strace may not trace here: {said}")
        yield
    finally:
        tracer.terminate()
        tracer.wait()
        tracer.stderr.close()


def run(house: House, data_dir: Path, inject: str) -> tuple[Verdict, list[int]]:
    """A run whose first process is traced from when it is ready; how it ended, and the rest."""
    start = house.furnish(data_dir)
    history = History(data_dir.with_suffix(".history"))
    house.replica.asked.clear()
    client = Client(url_of(start), key_of(start), history)
    with contextlib.closing(client), house.open(start) as supervisor:
        await_ready(start)
        with traced(supervisor.process.pid, inject, data_dir.with_suffix(".strace")):
            work_through(client)
            client.list_all()
    return check(history, answer_to), supervisor.ends


@pytest.mark.soak
@pytest.mark.parametrize(("calls", "number"), KILLS)
def test_a_kill_inside_a_system_call_loses_and_doubles_nothing(
    calls, number, fault_house: House, data_dir, ledger
):
    inject = f"{calls}:signal=SIGKILL:when={number}"
    verdict, ends = run(fault_house, data_dir, inject)
    ledger.note("kill_syscall", verdict)
    assert ends[0] == -9, f"no thread came to its {number}th {calls}"


@pytest.mark.soak
@pytest.mark.parametrize("number", [1, 2, 3, 5, 8, 13, "2..6"])
def test_a_sync_that_fails_is_not_taken_for_one_that_succeeded(
    number, fault_house: House, data_dir, ledger
):
    verdict, ends = run(fault_house, data_dir, f"{SYNCS}:error=EIO:when={number}")
    ledger.note("eio_sync", verdict)
    assert ends[0] == 0
    assert "EIO" in data_dir.with_suffix(".strace").read_text()
