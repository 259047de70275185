"""P15: two control plane processes, one of which is paused or killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlmodel import select
from tests.integration.peers.conftest import PRINCIPAL, until

from tidegate_controlplane.provision.process import is_alive
from tidegate_controlplane.store.leadership import read_claim
from tidegate_controlplane.store.tables import Event, Invocation, Replica

SCRIPT = Path(__file__).with_name("plane_process.py")


@dataclass
class Process:
    """A control plane in a process, and what it noted."""

    child: subprocess.Popen[bytes]
    notes: Path

    def said(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def is_stopped(self) -> bool:
        stat = Path(f"/proc/{self.child.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    def stop_before_next_write(self) -> None:
        self.notes.with_suffix(".stop").touch()

    def send(self, number: int) -> None:
        os.kill(self.child.pid, number)


@pytest.fixture
def begin(platform, tmp_path):
    """Starts one, which is killed in the end."""
    begun = []

    async def start(name: str, **changes) -> Process:
        settings = platform.settings(name, **changes).model_dump_json()
        notes = tmp_path / f"{name}.notes"
        command = [sys.executable, "-W", "error", str(SCRIPT), settings, str(notes)]
        environment = {**os.environ, "REPLICA_S": "0.2"}
        found = Process(subprocess.Popen(command, env=environment), notes)
        begun.append(found)
        await until(lambda: "serving" in found.said() or found.child.poll() is not None)
        assert found.child.poll() is None
        return found

    yield start
    for each in begun:
        each.child.kill()
        each.child.wait()


async def rows(plane, table):
    return await plane.services.database.read(lambda s: list(s.exec(select(table))))


async def test_a_paused_leader_that_wakes_with_a_decision_in_hand_writes_nothing_and_follows(
    platform, begin
):
    paused = await begin("one")
    other = await platform.plane("two")
    await other.declare(platform.model, scaling={"min_replicas": 1})
    assert (await other.ask("hello")).startswith("echo hello")
    before = {row.id: (row.pid, row.process_start) for row in await rows(other, Replica)}

    paused.stop_before_next_write()
    await other.declare(platform.model, scaling={"min_replicas": 2})  # it decides on another one
    await until(paused.is_stopped)
    await until(lambda: other.leads)
    answer = await other.ask("again")
    assert answer.split()[-1] not in before, "the new leader started its own"
    await until(lambda: not any(is_alive(*process) for process in before.values()))

    before_it_woke, crowd = paused.said(), other.services.endpoints.elsewhere._crowd
    assert not crowd.has_any
    paused.send(signal.SIGCONT)
    await until(lambda: crowd.has_any)  # it follows, and says so
    await asyncio.sleep(0.5)
    assert paused.said() == [*before_it_woke, "goes on"], "no write was let through"
    claim = await other.services.database.read(read_claim)
    assert (claim.epoch, other.leads) == (2, True)
    reasons = [event.reason for event in await rows(other, Event)]
    assert reasons.count("ReplicaRequested") == len(await rows(other, Replica))


@pytest.mark.soak
async def test_a_leader_killed_with_work_running_loses_none_and_doubles_none(platform, begin):
    killed = await begin("one")
    other = await platform.plane("two")
    await other.declare(platform.model, scaling={"min_replicas": 1})
    await other.ask("hello")
    ids = [await other.submit(f"prompt {n}") for n in range(40)]

    async def finished() -> int:
        return sum(row.finished_at is not None for row in await rows(other, Invocation))

    async def some_run() -> bool:
        return await finished() >= 5

    await until(some_run)
    killed.send(signal.SIGKILL)
    assert await finished() < len(ids), "it was killed with work to do"
    for key in ids:
        done = await other.services.invocations.wait(PRINCIPAL, key, 30.0)
        assert done.status == "succeeded", done
    results = [await other.services.invocations.result(PRINCIPAL, key) for key in ids]
    for number, result in enumerate(results):
        assert json.loads(result)["text"].startswith(f"echo prompt {number} by")
    assert len(await rows(other, Invocation)) == len(ids)
    assert other.leads


@pytest.mark.soak
async def test_leaders_paused_again_and_again_never_write_in_a_former_term(platform, begin):
    """Each is paused at any moment of its pass, and continued after the other took over."""
    processes = [await begin("one"), await begin("two")]
    witness = await platform.plane("witness")
    assert not witness.leads
    await witness.declare(platform.model, scaling={"min_replicas": 1})
    for _ in range(10):
        claim = await witness.services.database.read(read_claim)
        pausing = [each for each in processes if leads(each, claim.epoch)]
        if not pausing:  # the witness leads: let it go on being paused is not possible
            break
        pausing[0].send(signal.SIGSTOP)
        await until_epoch(witness, claim.epoch + 1)
        pausing[0].send(signal.SIGCONT)
        await asyncio.sleep(0.5)
    for each in processes:
        epochs = [int(line) for line in each.said() if line.isdigit()]
        assert epochs == sorted(epochs)


def leads(process: Process, epoch: int) -> bool:
    return str(epoch) in process.said()


async def until_epoch(plane, epoch: int) -> None:
    async def reached() -> bool:
        return (await plane.services.database.read(read_claim)).epoch >= epoch

    await until(reached)
