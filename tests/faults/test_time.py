"""Processes that stand still, clocks that jump, and locks that somebody else holds."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tests.faults.checker import check
from tests.faults.client import PATIENCE_S, Client
from tests.faults.history import History
from tests.faults.house import House, await_ready, key_of, url_of, work_through
from tests.faults.plane import CAPACITY, LEASE_S
from tests.faults.replica import LONG, SLOW, answer_to

DAY_S = 86_400
LOCK_S = 2.0


@contextlib.contextmanager
def working(house: House, start, history: History, lives=None):
    house.replica.asked.clear()
    client = Client(url_of(start), key_of(start), history)
    with contextlib.closing(client), house.open(start, lives) as supervisor:
        await_ready(start)
        yield client, supervisor


@pytest.mark.soak
def test_a_process_that_was_stopped_past_its_leases_changes_no_result(
    fault_house: House, data_dir, ledger
):
    history = History(data_dir.with_suffix(".history"))
    asked = fault_house.replica.asked
    with working(fault_house, fault_house.furnish(data_dir), history) as (client, supervisor):
        ids = [client.submit(f"{LONG} {n}", f"long {n}") for n in range(CAPACITY + 2)]
        until(lambda: len(asked) == CAPACITY)
        supervisor.process.send(signal.SIGSTOP)
        time.sleep(2 * LEASE_S)
        supervisor.process.send(signal.SIGCONT)
        client.finish(ids)
        client.list_all()
    ledger.note("stopped", check(history, answer_to))
    assert set(asked.values()) == {1}, "it did not take itself for dead"


@pytest.mark.soak
def test_a_worker_that_forgot_its_lease_is_followed_by_another(
    fault_house: House, data_dir, ledger
):
    history = History(data_dir.with_suffix(".history"))
    start = fault_house.furnish(data_dir)
    lives = [["claim.committed=eio@1", "claim.committed=eio@3"]]
    with working(fault_house, start, history, lives) as (client, _):
        began = time.monotonic()
        client.finish([client.submit(f"one {n}", f"key {n}") for n in range(4)])
        took_s = time.monotonic() - began
    ledger.note("lease_lost", check(history, answer_to))
    assert took_s < 2 * LEASE_S + 5, "within the lease and 5 s, each time (P4)"


def faketime_library() -> Path:
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed")
    found = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketimeMT is not where faketime keeps it")
    return found[0]


@pytest.mark.soak
def test_a_clock_that_jumps_loses_no_lease_and_runs_nothing_twice(
    fault_house: House, data_dir, ledger
):
    """Wall time only: the monotonic clock is what leases go by."""
    offset = data_dir.with_suffix(".offset")
    offset.write_text("+0s")
    environment = {
        "LD_PRELOAD": str(faketime_library()),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    history = History(data_dir.with_suffix(".history"))
    start = replace(fault_house.furnish(data_dir), environment=environment, fresh=True)
    with working(fault_house, start, history) as (client, supervisor):
        ids = []
        for day, jump in enumerate([0, DAY_S, -DAY_S, 0]):
            offset.write_text(f"{jump:+d}s")
            ids += [client.submit(f"{SLOW} {day} {n}", f"{day} {n}") for n in range(3)]
            shown = client.get(f"/v1/invocations/{ids[-1]}").json()["created_at"]
            assert abs(shown - time.time() - jump) < 60, "the clock of the process did not jump"
            time.sleep(0.2)
        client.finish(ids)
        client.list_all()
    ledger.note("clock", check(history, answer_to))
    assert set(fault_house.replica.asked.values()) == {1}
    assert supervisor.ends == [0]


@pytest.mark.soak
@pytest.mark.parametrize("jump_s", [DAY_S - 600, 600 - DAY_S], ids=["forth", "back"])
def test_what_waits_while_the_clock_jumps_runs_once_and_soon(
    jump_s, fault_house: House, data_dir, ledger
):
    """Not quite a day, which is how long a request may wait to begin."""
    ahead = data_dir.with_suffix(".ahead")
    ahead.write_text("0")
    history = History(data_dir.with_suffix(".history"))
    start = replace(fault_house.furnish(data_dir), clock=str(ahead))
    with working(fault_house, start, history) as (client, supervisor):
        ids = [client.submit(f"{SLOW} {n}", f"before {n}") for n in range(10)]
        move(ahead, jump_s)
        ids += [client.submit(f"{SLOW} {n}", f"between {n}") for n in range(10, 16)]
        move(ahead, 0)
        ids += [client.submit(f"after {n}", f"after {n}") for n in range(3)]
        client.finish(ids)
        client.list_all()
    ledger.note("clock", check(history, answer_to))
    assert set(fault_house.replica.asked.values()) == {1}
    assert supervisor.ends == [0]


@pytest.mark.soak
def test_a_forgotten_lease_is_taken_back_though_the_clock_went_back(
    fault_house: House, data_dir, ledger
):
    ahead = data_dir.with_suffix(".ahead")
    ahead.write_text("0")
    history = History(data_dir.with_suffix(".history"))
    start = replace(fault_house.furnish(data_dir), clock=str(ahead))
    lives = [["claim.committed=eio@1"]]
    with working(fault_house, start, history, lives) as (client, _):
        ids = [client.submit("one", "key")]
        until(lambda: client.get(f"/v1/invocations/{ids[0]}").json()["status"] == "running")
        time.sleep(LEASE_S / 4)  # the lease is seen, and not lost yet
        move(ahead, 600 - DAY_S)
        began = time.monotonic()
        client.finish(ids)
        took_s = time.monotonic() - began
        client.list_all()
    ledger.note("clock", check(history, answer_to))
    assert took_s < LEASE_S + 5, "within the lease and 5 s (P4)"


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def move(ahead: Path, seconds: float) -> None:
    draft = ahead.with_suffix(".draft")
    draft.write_text(str(seconds))
    draft.replace(ahead)


@pytest.mark.soak
def test_a_lock_that_another_process_holds_costs_only_time(fault_house: House, data_dir, ledger):
    history = History(data_dir.with_suffix(".history"))
    with working(fault_house, fault_house.furnish(data_dir), history) as (client, supervisor):
        holding = threading.Thread(target=hold_lock, args=(data_dir / "tidegate.db",))
        holding.start()
        work_through(client)
        client.list_all()
        holding.join()
    ledger.note("lock_held", check(history, answer_to))
    assert not history.seen("refused")
    assert supervisor.ends == [0]


def hold_lock(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as held:
        held.execute("BEGIN IMMEDIATE")
        time.sleep(LOCK_S)
        held.execute("ROLLBACK")


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(False, id="undisturbed", marks=pytest.mark.soak),
        pytest.param(True, id="killed"),
    ],
)
def test_one_key_from_twenty_threads_is_one_request(kill, fault_house: House, data_dir, ledger):
    lives = [["submit.committed=kill@1"]] if kill else []
    history = History(data_dir.with_suffix(".history"))
    start = fault_house.furnish(data_dir)
    with working(fault_house, start, history, lives) as (client, supervisor):
        with ThreadPoolExecutor(20) as pool:
            ids = set(pool.map(lambda _: client.submit("once", "one key"), range(20)))
        client.finish(ids)
        client.list_all()
    assert len(history.seen("listed")) == 1
    ledger.note("duplicates", check(history, answer_to))
    assert supervisor.kills == int(kill)
