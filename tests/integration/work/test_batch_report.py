"""What a batch says of its lines: counted from rows, without reading any."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import event, text
from sqlmodel import Session, select

from tidegate.protocol.work import InvocationState
from tidegate_controlplane.store import batches
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.tables import Batch, Deployment, Invocation


@pytest.fixture
def session(house):
    with Session(house.db.writer) as session:
        yield session


@pytest.fixture
def now(house):
    return house.clock.now()


async def test_a_batch_tells_what_it_used_and_how_fast_it_went(house, kit):
    await house.deploy()
    house.replicas.behaviour = lambda prompt: asyncio.sleep(0.01, kit.said(prompt))
    async with house.working() as work:
        lines = [kit.line(name) for name in "abcd"] + [b"junk"]
        done = await house.ended(work, await house.batch(work, lines))
    assert done.usage.model_dump() == {
        "input_tokens": 8,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 20,
    }
    assert done.progress.lines_per_s > 0 and done.progress.tokens_per_s > 0
    assert done.progress.completes_at == done.completed_at and done.progress.in_time
    assert done.progress.replica_s > 0 and done.progress.cost_usd is None


async def test_replica_seconds_on_a_rented_machine_have_a_price(house, kit):
    served = await house.deploy()
    offer = {
        "provider": "aws",
        "covers": "sagemaker",
        "region": "us-west-2",
        "instance_type": "ml.g6.12xlarge",
        "replicas": 4,
        "usable_bytes": 1,
        "utilisation": 0.9,
        "usd_per_hour": 4 * 3600.0,
        "source": "a price list",
        "as_of": "2026-01-01",
        "minimum_usd_per_month": 0.0,
    }

    def rent(session):
        session.get_one(Deployment, served.deployment_id).plan = {"offer": offer}

    await house.db.write(rent)
    house.replicas.behaviour = lambda prompt: asyncio.sleep(0.01, kit.said(prompt))
    async with house.working() as work:
        done = await house.ended(work, await house.batch(work, [kit.line("a")]))
    assert done.progress.cost_usd == pytest.approx(done.progress.replica_s, abs=0.001)


async def test_tokens_that_the_replica_had_cached_are_counted(house, kit):
    await house.deploy()
    usage = b'{"prompt_tokens":9,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":7}}'

    async def behave(_prompt):
        answer = kit.said("x")
        return type(answer)(200, b'{"usage":%b}' % usage)

    house.replicas.behaviour = behave
    async with house.working() as work:
        done = await house.ended(work, await house.batch(work, [kit.line("a"), kit.line("b")]))
    assert done.usage.input_tokens_details.cached_tokens == 14


async def test_what_a_batch_used_is_still_told_when_its_lines_are_gone(house, kit):
    await house.deploy()
    async with house.working() as work:
        done = await house.ended(work, await house.batch(work, [kit.line("a")]))
        await house.db.write(lambda session: session.execute(text("DELETE FROM invocation")))
        assert await work.batches.get(kit.principal, done.id) == done
        listed = await work.batches.list(kit.principal, after=None, limit=5)
    assert listed.data == [done.model_copy(update={"progress": None})]


async def test_a_running_batch_is_measured_over_the_last_minute_also_by_another_process(house, kit):
    await house.deploy(capacity=1)
    lines = [kit.line(name) for name in "abc"]
    async with house.working() as work:
        batch_id = await house.batch(work, lines)
        await house.ended(work, batch_id)

    def long_ago(session):
        batch, now = session.get(Batch, batch_id), house.clock.now()
        batch.status, batch.tally, batch.completed_at = "in_progress", None, None
        batch.in_progress_at = now - timedelta(minutes=10)
        rows = session.exec(select(Invocation).order_by(Invocation.line_no)).all()
        rows[0].finished_at = now - timedelta(seconds=61)
        rows[1].finished_at = now - timedelta(seconds=30)
        rows[2].status, rows[2].finished_at = "queued", None

    await house.db.write(long_ago)
    seen = await house.work().batches.get(kit.principal, batch_id)
    assert seen.request_counts.model_dump() == {"total": 3, "completed": 2, "failed": 0}
    assert seen.progress.window_s == 60.0
    assert seen.progress.lines_per_s == pytest.approx(1 / 60, abs=1e-3)
    assert seen.progress.tokens_per_s == pytest.approx(5 / 60, abs=1e-3)


def all_of_it(session, now):
    batches.tally(session, "batch_1")


def lately(session, now):
    batches.tally(session, "batch_1", now)


def what_is_left(session, now):
    batches.lines(session, "batch_1")


@pytest.mark.both_engines
@pytest.mark.parametrize("ask", [all_of_it, lately])
def test_the_sums_of_a_batch_are_read_from_an_index_and_no_row(house, session, now, ask):
    """Fifty thousand lines are a few milliseconds so; their rows would be hundreds of megabytes."""
    plan = plan_of(session, now, ask)
    if house.db.shared:
        assert "Index Only Scan using ix_invocation_batch_done" in plan
    else:
        assert "SEARCH invocation USING COVERING INDEX ix_invocation_batch_done (batch_id=?" in plan


@pytest.mark.both_engines
def test_what_is_left_of_a_batch_is_found_by_an_index(house, session, now):
    plan = plan_of(session, now, what_is_left)
    if house.db.shared:
        assert "ix_invocation_batch_open" in plan
    else:
        assert "SEARCH invocation USING INDEX ix_invocation_batch_open (batch_id=?" in plan


def plan_of(session, now, ask):
    """How the engine carries out the first question; PostgreSQL as if there were many rows."""
    asked = []
    connection = session.connection()
    explain = "EXPLAIN QUERY PLAN"
    if connection.dialect.name == "postgresql":
        explain = "EXPLAIN"
        for way in ("seqscan", "bitmapscan"):  # which are best for few rows
            connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
    event.listen(connection, "before_cursor_execute", lambda *said: asked.append(said[2:4]))
    ask(session, now)
    statement, parameters = asked[0]
    steps = connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
    return " ".join(str(row[-1]) for row in steps)


def test_only_lines_that_ended_are_tallied_and_answers_are_told_apart(session, now):
    session.add(batch(now))
    session.flush()
    for number, state in enumerate(InvocationState, start=1):
        finished_at = now if state.is_final else None
        session.add(line(now, line_no=number, status=state.value, finished_at=finished_at))
    session.flush()
    tally = batches.tally(session, "batch_1")
    assert (tally.succeeded, tally.failed, tally.prompt_tokens) == (1, 4, 5)
    assert sorted(batches.unanswered(session, "batch_1")) == [4, 5, 6, 7]
    assert batches.tally(session, "batch_1", now).ended == 0
    assert batches.lines(session, "batch_1") == batches.Lines(
        queued=True, running=True, cut_off=True
    )
    assert batches.lines(session, "batch_2") == batches.Lines()


def batch(now):
    return Batch(
        id="batch_1",
        project_id="prj_1",
        status="in_progress",
        endpoint="/v1/completions",
        completion_window="24h",
        created_at=now,
    )


def line(now, **values):
    good = {
        "id": new_id("batch_req"),
        "project_id": "prj_1",
        "deployment_id": "dep_m",
        "model": "m",
        "endpoint": "/v1/completions",
        "timeout_s": 900.0,
        "request_sha256": "0",
        "batch_id": "batch_1",
        "prompt_tokens": 1,
        "created_at": now,
        "available_at": now,
    }
    return Invocation(**(good | values))
