"""The queue against a dictionary, on each engine: whatever workers do, and whenever they die.

A model holds what each request must be. Rules submit, claim, beat, stop beating, complete with
leases new and old, cancel, expire, and restart the control plane; after each one the rows are what
the model says, so no request is lost, none is finished twice, and no late worker changes anything.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import delete
from sqlmodel import Session, select

from tidegate_controlplane.domain.shares import Turns
from tidegate_controlplane.domain.sighting import is_lost
from tidegate_controlplane.store import claims, endings, invocations, leases
from tidegate_controlplane.store.database import Guarded
from tidegate_controlplane.store.leases import Lease, Result
from tidegate_controlplane.store.open import open_database
from tidegate_controlplane.store.tables import FAR, Invocation, Project
from tidegate_controlplane.work.leases import Beats, observe_beats, take_back

LEASE_S = 30.0
MAX_ATTEMPTS = 3
START = datetime(2026, 1, 1, tzinfo=UTC)
WORKERS = st.sampled_from(["wrk_a", "wrk_b", "wrk_c"])
PICK = st.integers(0, 999)


@dataclass
class Wanted:
    """What one request must be."""

    priority: int
    project_id: str
    due_at: datetime
    state: str = "queued"
    epoch: int = 0
    attempt: int = 0
    owner: str | None = None
    beaten_at: datetime | None = None
    cancel: bool = False
    available_at: datetime = START
    delayed: bool = False
    result: bytes | None = None

    @property
    def is_final(self) -> bool:
        return self.state not in ("queued", "running")


@dataclass
class Place:
    """Where the rows are; opened anew when the control plane restarts."""

    url: str | None
    path: Path

    def __post_init__(self) -> None:
        self.database = open_database(self.url, self.path)

    def reopen(self) -> None:
        self.database.close()
        self.database = open_database(self.url, self.path)


class Queue(RuleBasedStateMachine):
    place: ClassVar[Place]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = START
        self.wanted: dict[str, Wanted] = {}
        self.leases: list[Lease] = []
        """Every one that was ever given."""
        self.turns = Turns()
        self.seen: Beats = {}

    def teardown(self) -> None:
        self.write(lambda session: session.execute(delete(Invocation)))
        self.runner.close()

    def write(self, unit: Callable[[Session], Any]) -> Any:
        return self.runner.run(self.place.database.write(unit))

    # --- what happens ---

    @rule(
        priority=st.sampled_from([0, 0, 5, 10]),
        project_id=st.sampled_from(["prj_1", "prj_2"]),
        lasts_s=st.sampled_from([None, 20, 200]),
    )
    def submit(self, priority: int, project_id: str, lasts_s: int | None) -> None:
        due_at = FAR if lasts_s is None else self.now + timedelta(seconds=lasts_s)
        row = Invocation(
            id=f"inv_{len(self.wanted):04}",
            project_id=project_id,
            deployment_id="dep_1",
            model="m",
            endpoint="/v1/completions",
            status="queued",
            priority=priority,
            max_attempts=MAX_ATTEMPTS,
            timeout_s=900.0,
            request_sha256="",
            created_at=self.now,
            available_at=self.now,
            expires_at=None if lasts_s is None else due_at,
            due_at=due_at,
        )
        self.wanted[row.id] = Wanted(priority, project_id, due_at, available_at=self.now)
        self.write(lambda session: invocations.insert(session, row))

    @rule(worker=WORKERS, alone=st.integers(0, 3), lines=st.integers(0, 3))
    def claim(self, worker: str, alone: int, lines: int) -> None:
        def unit(session: Session) -> list[Invocation]:
            return claims.claim(
                session, "dep_1", worker, self.now, alone=alone, lines=lines, turns=self.turns
            )

        waiting = self._claimable()
        rows = self.write(Guarded(unit))
        singles = sum(one.priority < 10 for one in waiting.values())
        taken = min(alone, singles)
        assert len(rows) == taken + min(max(0, lines - taken), len(waiting) - singles)
        assert [row.priority for row in rows] == sorted(row.priority for row in rows)
        self._nobody_is_passed_over(waiting, rows)
        for row in rows:
            one = waiting[row.id]
            one.state, one.owner, one.beaten_at = "running", worker, self.now
            one.epoch, one.attempt = one.epoch + 1, one.attempt + 1
            self.leases.append(Lease(row.id, one.epoch))
        self.turns = claims.turns_after(self.turns, rows)

    @rule(worker=WORKERS)
    def beat(self, worker: str) -> None:
        mine = [lease for lease in self.leases if self._holds(lease, worker)]
        held = self.write(Guarded(lambda session: leases.beat(session, worker, self.leases)))
        assert {one.lease for one in held} == set(mine)
        for lease in mine:
            self.wanted[lease.invocation_id].beaten_at = self.now

    @rule(seconds=st.sampled_from([1, 10, 31]))
    def wait(self, seconds: int) -> None:
        """Time passes; workers that do not beat meanwhile are paused, or dead."""
        self.now += timedelta(seconds=seconds)

    @rule()
    def reap(self) -> None:
        clock = self.now.timestamp()
        held = self.write(leases.leased)
        self.seen = observe_beats(self.seen, held, clock)
        lost = [one for one in held if is_lost(self.seen[one.lease], clock, LEASE_S)]
        self.write(lambda session: take_back(session, lost, self.now))
        for one in lost:
            found = self.wanted[one.lease.invocation_id]
            assert found.beaten_at is not None
            assert (self.now - found.beaten_at).total_seconds() >= LEASE_S
            if found.cancel:
                self._end(found, "canceled")
            elif found.attempt >= MAX_ATTEMPTS:
                self._end(found, "dead")
            else:
                self._queue(found, self.now)

    @rule(pick=PICK)
    def complete(self, pick: int) -> None:
        if lease := self._any(pick):
            self._complete(lease)

    @rule(pick=PICK, after_s=st.sampled_from([0, 5, 60]), counted=st.booleans())
    def give_back(self, pick: int, after_s: int, counted: bool) -> None:
        if lease := self._any(pick):
            self._give_back(lease, self.now + timedelta(seconds=after_s), counted=counted)

    @rule(pick=PICK)
    def fail(self, pick: int) -> None:
        if lease := self._any(pick):
            self._fail(lease)

    @rule(worker=WORKERS, what=st.sampled_from(["complete", "fail", "give_back"]))
    def stand_still(self, worker: str, what: str) -> None:
        """All workers, past their leases; one goes on, and the others come back too late."""
        self.submit(0, "prj_1", None)
        self.claim("wrk_a", 3, 3)
        self.reap()
        self.wait(31)
        self.reap()
        self.claim(worker, 3, 3)
        late = [one for one in self.leases if self._runs(one) and not self._holds(one)]
        for lease in late:
            match what:
                case "complete":
                    self._complete(lease)
                case "fail":
                    self._fail(lease)
                case _:
                    self._give_back(lease, self.now, counted=True)

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        if not self.wanted:
            return
        invocation_id = list(self.wanted)[pick % len(self.wanted)]
        one = self.wanted[invocation_id]
        done = self.write(
            lambda session: invocations.cancel(
                session, session.get_one(Invocation, invocation_id), self.now
            )
        )
        assert done == (not one.is_final)
        if one.state == "queued":
            self._end(one, "canceled")
        elif one.state == "running":
            one.cancel = True

    @rule()
    def expire(self) -> None:
        overdue = {
            key
            for key, one in self.wanted.items()
            if one.state == "queued" and one.due_at <= self.now
        }
        unit = Guarded(lambda session: endings.expire(session, self.now))
        assert set(self.write(unit)) == overdue
        for key in overdue:
            self._end(self.wanted[key], "expired")

    @rule()
    def promote(self) -> None:
        due = [one for one in self.wanted.values() if one.delayed and one.available_at <= self.now]
        unit = Guarded(lambda session: claims.promote(session, self.now))
        assert self.write(unit) == len(due)
        for one in due:
            one.delayed = False

    @rule()
    def restart(self) -> None:
        """The control plane dies. Where it owned its file, the next one takes its work back."""
        self.place.reopen()
        if self.place.database.shared:
            return

        def unit(session: Session) -> None:
            for held in leases.leased(session):
                leases.requeue(session, held.lease, self.now, available_at=self.now, counted=False)

        self.write(unit)
        for one in self.wanted.values():
            if one.state == "running" and one.cancel:
                self._end(one, "canceled")
            elif one.state == "running":
                self._queue(one, self.now, counted=False)

    # --- what a worker does with a lease, held or lost ---

    def _complete(self, lease: Lease) -> None:
        body = f"{lease.invocation_id} {lease.epoch}".encode()
        result = Result(body, None, 1, 1)
        unit = Guarded(lambda session: leases.succeed(session, lease, self.now, result))
        held, done = self._holds(lease), self.write(unit)
        assert done == held
        if held:
            self._end(self.wanted[lease.invocation_id], "succeeded", body)

    def _give_back(self, lease: Lease, again_at: datetime, *, counted: bool) -> None:
        def unit(session: Session) -> Any:
            return leases.requeue(session, lease, self.now, available_at=again_at, counted=counted)

        held, became = self._holds(lease), self.write(unit)
        assert (became is not None) == held
        if held:
            one = self.wanted[lease.invocation_id]
            if one.cancel:
                self._end(one, "canceled")
            else:
                self._queue(one, again_at, counted=counted)

    def _fail(self, lease: Lease) -> None:
        failed = invocations.InvocationState.FAILED
        unit = Guarded(lambda session: leases.end(session, lease, failed, self.now, {}))
        held, done = self._holds(lease), self.write(unit)
        assert done == held
        if held:
            self._end(self.wanted[lease.invocation_id], "failed")

    # --- what holds ---

    @invariant()
    def rows_are_what_the_model_says(self) -> None:
        rows = self.write(lambda session: list(session.exec(select(Invocation))))
        found = {row.id: _facts(row) for row in rows}
        assert found == {key: _facts_wanted(one) for key, one in self.wanted.items()}

    def _nobody_is_passed_over(self, waiting: dict[str, Wanted], rows: list[Invocation]) -> None:
        """Where one project was given two places more, the other had no more to give."""
        for priority in {row.priority for row in rows}:
            taken = {"prj_1": 0, "prj_2": 0}
            left = {"prj_1": 0, "prj_2": 0}
            chosen = {row.id for row in rows}
            for key, one in waiting.items():
                if one.priority == priority:
                    (taken if key in chosen else left)[one.project_id] += 1
            for one, other in (("prj_1", "prj_2"), ("prj_2", "prj_1")):
                assert taken[one] <= taken[other] + 1 or not left[other]

    # --- the model ---

    def _claimable(self) -> dict[str, Wanted]:
        return {
            key: one
            for key, one in self.wanted.items()
            if one.state == "queued" and not one.delayed and one.due_at >= self.now
        }

    def _any(self, pick: int) -> Lease | None:
        return self.leases[pick % len(self.leases)] if self.leases else None

    def _runs(self, lease: Lease) -> bool:
        return self.wanted[lease.invocation_id].state == "running"

    def _holds(self, lease: Lease, owner: str | None = None) -> bool:
        one = self.wanted[lease.invocation_id]
        held = self._runs(lease) and one.epoch == lease.epoch
        return held and owner in (None, one.owner)

    def _end(self, one: Wanted, state: str, result: bytes | None = None) -> None:
        assert not one.is_final
        one.state, one.owner, one.result, one.delayed = state, None, result, False

    def _queue(self, one: Wanted, again_at: datetime, *, counted: bool = True) -> None:
        one.state, one.owner = "queued", None
        one.available_at, one.delayed = again_at, again_at > self.now
        one.attempt -= not counted


def _facts(row: Invocation) -> tuple[Any, ...]:
    waits = row.delayed and row.status == "queued"
    assert (row.finished_at is not None) == (row.status not in ("queued", "running"))
    return row.status, row.lease_epoch, row.attempt, row.lease_owner, row.result, waits


def _facts_wanted(one: Wanted) -> tuple[Any, ...]:
    return one.state, one.epoch, one.attempt, one.owner, one.result, one.delayed


@pytest.fixture(params=["sqlite", "postgres"])
def machine(
    request: pytest.FixtureRequest, tmp_path: Path, migrated: Path
) -> Iterator[type[Queue]]:
    url = None
    if request.param == "postgres":
        url = request.getfixturevalue("postgres").database()
    shutil.copy(migrated, tmp_path / "tidegate.db")
    found = Place(url, tmp_path / "tidegate.db")
    with Session(found.database.writer) as session, session.begin():
        for name in ("prj_1", "prj_2"):
            session.add(Project(id=name, name=name, created_at=START))
    yield type("Queue", (Queue,), {"place": found})
    found.database.close()


def run(machine: type[Queue], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_queue_is_what_a_dictionary_says(machine: type[Queue]) -> None:
    run(machine, examples=6, steps=20)


@pytest.mark.soak
def test_the_queue_is_what_a_dictionary_says_for_long(machine: type[Queue]) -> None:
    run(machine, examples=200, steps=60)
