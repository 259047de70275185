"""The rows of the queue: who may change what, and when."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlmodel import Session, select

from tidegate.protocol.work import BatchStatus, InvocationState
from tidegate_controlplane.domain.shares import Turns
from tidegate_controlplane.store import backlog, batches, claims, endings, invocations, leases
from tidegate_controlplane.store.backlog import Backlog
from tidegate_controlplane.store.database import Guarded
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.leases import Lease, Result
from tidegate_controlplane.store.tables import Batch, File, Invocation

pytestmark = pytest.mark.both_engines

RESULT = Result(b"{}", None, 1, 2)
DEPLOYMENT = "dep_m"


@pytest.fixture
def session(house):
    with Session(house.db.writer) as session:
        yield session


@pytest.fixture
def now(house):
    return house.clock.now()


def row(now, deployment_id=DEPLOYMENT, **values):
    good = {
        "id": new_id("inv"),
        "project_id": "prj_1",
        "deployment_id": deployment_id,
        "model": "m",
        "endpoint": "/v1/completions",
        "status": "queued",
        "timeout_s": 900.0,
        "request": b"{}",
        "request_sha256": "0",
        "created_at": now,
        "available_at": now,
    }
    return Invocation(**(good | values))


def claim(session, now, alone=9, lines=9, owner="me"):
    return claims.claim(session, DEPLOYMENT, owner, now, alone=alone, lines=lines)


def test_the_oldest_is_claimed_first_and_a_claim_raises_epoch_and_attempt(session, now):
    late, early = row(now), row(now, created_at=now - timedelta(seconds=5))
    session.add_all([late, early])
    [claimed] = claim(session, now, alone=1)
    assert (claimed.id, claimed.status, claimed.lease_owner) == (early.id, "running", "me")
    assert (claimed.lease_epoch, claimed.attempt) == (1, 1)


def test_what_backs_off_or_has_expired_or_waits_for_another_deployment_is_not_claimed(session, now):
    second = timedelta(seconds=1)
    session.add_all(
        [
            row(now, available_at=now + second, delayed=True),
            row(now, due_at=now - second),
            row(now, deployment_id="dep_other"),
        ]
    )
    assert claim(session, now) == []


def test_lines_only_take_what_is_left_of_their_own_room(session, now):
    session.add_all([row(now), *(row(now, priority=10) for _ in range(5))])
    assert [one.priority for one in claim(session, now, alone=4, lines=3)] == [0, 10, 10]
    assert claim(session, now, alone=4, lines=0) == []


def test_projects_take_turns_so_that_a_long_queue_delays_nobody_elses_single_request(session, now):
    later = now + timedelta(seconds=1)
    session.add_all([row(now, priority=p) for p in (0, 10) for _ in range(50)])
    singles = [row(later, project_id="prj_2", priority=p) for p in (0, 10)]
    session.add_all(singles)
    claimed = claim(session, now, alone=2, lines=4)
    assert {one.id for one in singles} < {one.id for one in claimed}
    assert len(claimed) == 4


def test_the_next_claim_begins_with_the_project_after_the_last(session, now):
    for project in ("prj_1", "prj_2"):
        session.add_all([row(now, project_id=project) for _ in range(3)])
    turns, order = Turns(), []
    while claimed := claims.claim(session, DEPLOYMENT, "me", now, alone=1, lines=0, turns=turns):
        turns = claims.turns_after(turns, claimed)
        order += [one.project_id for one in claimed]
    assert order == ["prj_1", "prj_2"] * 3


def test_room_that_one_project_leaves_goes_to_those_that_have_more(session, now):
    session.add_all([row(now) for _ in range(9)])
    session.add(row(now, project_id="prj_2"))
    assert len(claim(session, now, alone=6)) == 6


def test_a_project_that_has_only_overdue_requests_takes_nobody_elses_room(session, now):
    session.add_all([row(now, due_at=now - timedelta(seconds=1)), row(now, project_id="prj_2")])
    assert [one.project_id for one in claim(session, now, alone=1)] == ["prj_2"]


def test_within_a_project_the_earliest_deadline_goes_first_then_what_begins_alike(session, now):
    hour = timedelta(hours=1)
    first = row(now, due_at=now + hour)
    alike = [row(now, due_at=now + 2 * hour, affinity="b") for _ in range(2)]
    other = row(now - hour, due_at=now + 2 * hour, affinity="c")
    whenever = row(now - hour)
    session.add_all([whenever, alike[0], other, alike[1], first])
    order = [one.id for one in claim(session, now)]
    assert order == [first.id, *(one.id for one in alike), other.id, whenever.id]


def test_what_backs_off_is_claimed_once_its_time_has_come(session, now):
    second = timedelta(seconds=1)
    session.add(row(now))
    [claimed] = claim(session, now)
    leases.requeue(session, Lease.of(claimed), now, available_at=now + second, counted=True)
    session.expire_all()
    assert not claims.has_promotable(session, now)
    assert claims.promote(session, now) == 0
    assert claim(session, now + second) == []
    assert claims.has_promotable(session, now + second)
    assert claims.promote(session, now + second) == 1
    session.expire_all()
    [again] = claim(session, now + second)
    assert again.id == claimed.id


def test_what_backs_off_does_not_wait_for_a_clock_that_went_back(session, now):
    session.add(row(now))
    [claimed] = claim(session, now)
    later = now + timedelta(seconds=1)
    leases.requeue(session, Lease.of(claimed), now, available_at=later, counted=True)
    session.expire_all()
    yesterday = now - timedelta(days=1)
    assert claims.has_promotable(session, yesterday)
    assert claims.promote(session, yesterday) == 1


async def test_workers_that_claim_at_once_never_get_the_same_row(house, now):
    await house.db.write(lambda s: s.add_all([row(now) for _ in range(60)]))

    def take(owner):
        return Guarded(lambda s: claim(s, now, alone=5, lines=0, owner=owner))

    taken = await asyncio.gather(*(house.db.write(take(f"wrk_{n}")) for n in range(12)))
    ids = [one.id for rows in taken for one in rows]
    assert len(ids) == len(set(ids)) == 60


def test_the_backlog_is_counted_and_weighed_with_the_age_of_its_oldest(session, now):
    session.add_all([row(now, tokens=7) for _ in range(3)])
    session.add(row(now, created_at=now - timedelta(seconds=9), tokens=2, delayed=True))
    session.add(row(now, "dep_other", tokens=1))
    session.add(row(now, status="failed", finished_at=now))
    claim(session, now, alone=1)
    assert backlog.backlog(session, now) == {
        DEPLOYMENT: Backlog(queued=3, queued_tokens=16, running=1, oldest_s=9.0),
        "dep_other": Backlog(queued=1, queued_tokens=1, running=0, oldest_s=0.0),
    }


def test_a_long_backlog_is_counted_up_to_a_bound(session, now, monkeypatch):
    monkeypatch.setattr(backlog, "COUNTED", 4)
    session.add_all([row(now, tokens=1) for _ in range(6)])
    found = backlog.backlog(session, now)[DEPLOYMENT]
    assert (found.queued, found.queued_tokens) == (4, 4)


@pytest.mark.parametrize("state", [s for s in InvocationState if s is not InvocationState.RUNNING])
def test_a_lease_on_what_does_not_run_changes_nothing(session, now, state):
    one = row(now, status=state.value, lease_epoch=4)
    session.add(one)
    session.flush()
    lease = Lease(one.id, 4)
    assert not leases.succeed(session, lease, now, RESULT)
    assert not leases.end(session, lease, InvocationState.FAILED, now, {})
    assert not leases.requeue(session, lease, now, available_at=now, counted=True)
    session.refresh(one)
    assert (one.status, one.result, one.error) == (state.value, None, None)


def test_a_lease_of_an_older_epoch_changes_nothing(session, now):
    session.add(row(now))
    [claimed] = claim(session, now)
    late = Lease.of(claimed)
    leases.requeue(session, late, now, available_at=now, counted=True)
    [again] = claim(session, now, owner="other")
    assert not leases.succeed(session, late, now, RESULT)
    assert not leases.end(session, late, InvocationState.DEAD, now, {})
    assert not leases.requeue(session, late, now, available_at=now, counted=True)
    assert leases.succeed(session, Lease.of(again), now, RESULT)


def test_requeueing_gives_the_attempt_back_only_when_it_did_not_count(session, now):
    session.add(row(now))
    [first] = claim(session, now)
    leases.requeue(session, Lease.of(first), now, available_at=now, counted=False)
    [second] = claim(session, now)
    assert second.attempt == 1
    leases.requeue(session, Lease.of(second), now, available_at=now, counted=True)
    [third] = claim(session, now)
    assert (third.attempt, third.lease_epoch) == (2, 3)


def test_requeueing_what_was_to_be_canceled_cancels_it(session, now):
    session.add(row(now))
    [claimed] = claim(session, now)
    assert invocations.cancel(session, claimed, now)
    became = leases.requeue(session, Lease.of(claimed), now, available_at=now, counted=True)
    assert became is InvocationState.CANCELED
    assert claim(session, now) == []


def test_a_beat_tells_which_leases_are_still_held(session, now):
    session.add_all([row(now), row(now)])
    kept, lost = (Lease.of(one) for one in claim(session, now))
    leases.requeue(session, lost, now, available_at=now, counted=True)
    [held] = leases.beat(session, "me", [kept, lost])
    assert (held.lease, held.beat) == (kept, 1)
    assert leases.beat(session, "other", [kept]) == []


def test_bulk_changes_leave_running_and_finished_rows_alone(session, now):
    rows = {state: row(now, status=state.value, expires_at=now) for state in InvocationState}
    for state, one in rows.items():
        one.finished_at = now if state.is_final else None
    session.add_all(rows.values())
    assert endings.fail_queued(session, "dep_other", now, {}) == []
    assert endings.expire(session, now) == [rows[InvocationState.QUEUED].id]
    session.expire_all()
    changed = {state for state, one in rows.items() if one.status != state}
    assert changed == {InvocationState.QUEUED}


def test_the_deployments_with_work_are_each_named_once(session, now):
    session.add_all([row(now, name) for name in ("dep_b", "dep_a", "dep_b")])
    session.add(row(now, "dep_done", status="failed", finished_at=now))
    session.add(row(now, None, status="failed", finished_at=now))
    assert claims.deployments_with_work(session) == ["dep_a", "dep_b"]


@pytest.mark.parametrize(
    ("unit", "index"),
    [
        (lambda s, now: claim(s, now), "ix_invocation_claim"),
        (lambda s, now: claims.deployments_with_work(s), "ix_invocation_claim"),
        (lambda s, now: backlog.backlog(s, now), "ix_invocation_backlog"),
        (lambda s, now: claims.has_promotable(s, now), "ix_invocation_delayed"),
        (lambda s, now: claims.promote(s, now), "ix_invocation_delayed"),
        (lambda s, now: endings.has_overdue(s, now), "ix_invocation_expiry"),
        (lambda s, now: leases.leased(s), "ix_invocation_lease"),
        (
            lambda s, now: invocations.page(s, "prj_1", after=None, limit=9),
            "ix_invocation_list",
        ),
    ],
)
def test_each_look_at_the_queue_is_served_by_its_index(house, session, now, unit, index):
    asked = []

    def note(_connection, _cursor, statement, parameters, _context, _many):
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    event.listen(house.db.writer, "before_cursor_execute", note)
    unit(session, now)
    event.remove(house.db.writer, "before_cursor_execute", note)
    assert asked
    connection = session.connection()
    explain = "EXPLAIN QUERY PLAN"
    if house.db.shared:
        explain = "EXPLAIN"
        connection.exec_driver_sql("SET enable_seqscan = off")  # which is best for few rows
    for statement, parameters in asked:
        steps = connection.exec_driver_sql(f"{explain} {statement}", parameters)
        plan = " ".join(str(step) for step in steps)
        # PostgreSQL may prefer another index while there are no rows; it must not need a scan.
        assert "Seq Scan" not in plan if house.db.shared else index in plan


def test_no_line_is_added_to_a_batch_that_was_cancelled_while_its_file_was_read(session, now):
    file = File(
        id="file_1",
        project_id="prj_1",
        filename="f",
        purpose="batch",
        bytes=0,
        sha256="",
        object_key="files/file_1",
        created_at=now,
    )
    seen = Batch(
        id="batch_1",
        project_id="prj_1",
        status="validating",
        endpoint="/v1/completions",
        input_file_id="file_1",
        completion_window="24h",
        created_at=now,
    )
    session.add(file)
    session.flush()
    session.add(seen)
    session.flush()
    session.expunge(seen)
    assert batches.add_lines(session, seen, [row(now, batch_id="batch_1", line_no=1)])
    assert batches.change(session, seen, BatchStatus.CANCELLING)
    session.expire_all()
    assert not batches.add_lines(session, seen, [row(now, batch_id="batch_1", line_no=2)])
    assert not batches.change(session, seen, BatchStatus.IN_PROGRESS)
    assert batches.last_line(session, "batch_1") == 1


# --- a model of it --------------------------------------------------------------------------------


@dataclass
class Model:
    """What must hold of one deployment's rows, however its workers live and die."""

    session: Session
    deployment_id: str
    now: object
    leases: list[Lease] = field(default_factory=list)
    """Every lease ever given, held or lost."""
    holder: dict[str, Lease] = field(default_factory=dict)
    results: dict[str, bytes] = field(default_factory=dict)

    def submit(self, _pick):
        self.session.add(row(self.now, self.deployment_id))
        self.session.flush()

    def claim(self, _pick):
        for one in claims.claim(self.session, self.deployment_id, "me", self.now, alone=2, lines=0):
            assert one.id not in self.holder and one.id not in self.results
            self.leases.append(Lease.of(one))
            self.holder[one.id] = Lease.of(one)

    def finish(self, pick):
        if lease := self._any(pick):
            body = f"{lease.epoch}".encode()
            done = leases.succeed(self.session, lease, self.now, Result(body, None, 0, 0))
            assert done == (self.holder.get(lease.invocation_id) == lease)
            if done:
                self.results[lease.invocation_id] = body
                del self.holder[lease.invocation_id]

    def lose(self, pick):
        if lease := self._any(pick):
            became = leases.requeue(
                self.session, lease, self.now, available_at=self.now, counted=True
            )
            assert (became is not None) == (self.holder.get(lease.invocation_id) == lease)
            if became is not None:
                del self.holder[lease.invocation_id]

    def check(self):
        self.session.expire_all()
        found = self.session.exec(
            select(Invocation).where(Invocation.deployment_id == self.deployment_id)
        ).all()
        assert {one.id: one.result for one in found if one.result} == self.results
        assert {one.id for one in found if one.status == "running"} == set(self.holder)
        assert all((one.finished_at is not None) == (one.id in self.results) for one in found)

    def _any(self, pick):
        return self.leases[pick % len(self.leases)] if self.leases else None


_numbers = count()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["submit", "claim", "claim", "finish", "lose"]), st.integers(0, 99)
        ),
        max_size=30,
    )
)
def test_only_the_holder_of_a_lease_changes_its_row_and_a_result_stays(session, now, steps):
    model = Model(session, f"dep_{next(_numbers)}", now)
    for name, pick in steps:
        getattr(model, name)(pick)
        model.check()
