"""What is committed is announced, once and thinly; what is rolled back never was."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import event
from sqlmodel import Session, select

from tidegate.protocol.webhooks import WebhookChange, WebhookEvent
from tidegate.protocol.work import BatchStatus, InvocationState
from tidegate_controlplane.store import batches, endings, invocations, leases
from tidegate_controlplane.store.deployments import change_deployment
from tidegate_controlplane.store.leases import Lease, Result
from tidegate_controlplane.store.rollouts import change_rollout
from tidegate_controlplane.store.tables import (
    Deployment,
    Invocation,
    Rollout,
    WebhookDelivery,
)

URL = "https://example.com/hook"
RESULT = Result(b'{"text": "a secret answer"}', None, 7, 9)


@pytest.fixture
def post(post):
    return post.with_settings(ports=(443,))


async def outbox(post):
    """What waits, oldest first."""
    return await post.db.read(
        lambda session: list(session.exec(select(WebhookDelivery).order_by(WebhookDelivery.id)))
    )


async def running(post, **values):
    """The lease of an invocation that runs."""
    running = {"status": "running", "lease_epoch": 1, "attempt": 1, "lease_owner": "me"}
    return Lease(await post.invocation(**running, **values), 1)


ENDINGS = {
    "invocation.succeeded": lambda s, lease, now: leases.succeed(s, lease, now, RESULT),
    "invocation.failed": lambda s, lease, now: leases.end(
        s, lease, InvocationState.FAILED, now, {"code": "timeout", "message": "a secret message"}
    ),
    "invocation.dead": lambda s, lease, now: leases.end(
        s, lease, InvocationState.DEAD, now, {"code": "worker_lost"}
    ),
    "invocation.canceled": lambda s, lease, now: leases.end(
        s, lease, InvocationState.CANCELED, now
    ),
}


@pytest.mark.parametrize("kind", ENDINGS)
async def test_each_ending_of_a_running_invocation_is_announced(post, kind):
    await post.declare(URL)
    lease, now = await running(post), post.clock.now()
    assert await outbox(post) == []
    await post.db.write(lambda session: ENDINGS[kind](session, lease, now))
    [told] = await outbox(post)
    assert (told.type, told.status, told.data["id"]) == (kind, "pending", lease.invocation_id)
    assert told.data["status"] == kind.removeprefix("invocation.")
    assert told.created_at == told.due_at == now
    await post.db.write(lambda session: ENDINGS[kind](session, lease, now))
    assert len(await outbox(post)) == 1, "the second time changes nothing"


async def test_an_event_tells_facts_and_no_text(post):
    await post.declare(URL)
    lease, now = await running(post), post.clock.now()
    await post.db.write(lambda session: leases.succeed(session, lease, now, RESULT))
    [told] = await outbox(post)
    assert told.data == {
        "id": lease.invocation_id,
        "status": "succeeded",
        "model": "m",
        "endpoint": "/v1/completions",
        "attempt": 1,
        "prompt_tokens": 7,
        "completion_tokens": 9,
        "error_code": None,
        "created_at": told.data["created_at"],
        "started_at": told.data["started_at"],
        "finished_at": int(now.timestamp()),
    }
    assert "secret" not in str(told.data)


async def test_of_an_error_only_its_code_is_told(post):
    await post.declare(URL)
    lease, now = await running(post), post.clock.now()
    await post.db.write(lambda session: ENDINGS["invocation.failed"](session, lease, now))
    [told] = await outbox(post)
    assert told.data["error_code"] == "timeout"
    assert "secret" not in str(told.data)


@pytest.mark.both_engines
async def test_what_ends_in_the_queue_is_announced_one_by_one(post):
    await post.declare(URL)
    past = post.clock.now() - timedelta(seconds=1)
    ids = [await post.invocation(expires_at=past) for _ in range(3)]
    await post.db.write(lambda session: endings.expire(session, post.clock.now()))
    told = await outbox(post)
    assert [one.type for one in told] == ["invocation.expired"] * 3
    assert sorted(one.data["id"] for one in told) == sorted(ids)
    assert len({one.event_id for one in told}) == 3


async def test_a_queued_one_that_is_canceled_and_a_requeued_one_are_announced(post):
    await post.declare(URL)
    queued, lease, now = await post.invocation(), await running(post), post.clock.now()

    def unit(session: Session) -> None:
        for row in session.exec(select(Invocation)):
            invocations.cancel(session, row, now)
        leases.requeue(session, lease, now, available_at=now, counted=False)

    del queued
    await post.db.write(unit)
    assert [one.type for one in await outbox(post)] == ["invocation.canceled"] * 2


async def test_what_only_goes_back_to_the_queue_is_not_announced(post):
    await post.declare(URL)
    lease, now = await running(post), post.clock.now()
    await post.db.write(
        lambda session: leases.requeue(session, lease, now, available_at=now, counted=True)
    )
    assert await outbox(post) == []


@pytest.mark.both_engines
async def test_a_change_that_is_rolled_back_was_never_announced(post):
    await post.declare(URL)
    lease, now = await running(post), post.clock.now()

    def unit(session: Session) -> None:
        assert leases.succeed(session, lease, now, RESULT)
        assert session.exec(select(WebhookDelivery)).one()
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        await post.db.write(unit)
    assert await outbox(post) == []


async def test_a_lease_that_was_lost_announces_nothing(post):
    await post.declare(URL)
    lease, now = await running(post), post.clock.now()
    stale = Lease(lease.invocation_id, lease.epoch - 1)
    await post.db.write(lambda session: leases.succeed(session, stale, now, RESULT))
    assert await outbox(post) == []


async def test_the_lines_of_a_batch_are_told_of_by_their_batch_alone(post):
    await post.declare(URL)
    batch = await post.batch(status="finalizing", total=1, model="m")
    now = post.clock.now()
    await post.invocation(batch_id=batch.id, priority=10, expires_at=now - timedelta(seconds=1))
    await post.db.write(lambda session: endings.expire(session, now))
    assert await outbox(post) == []
    await post.db.write(
        lambda session: batches.change(
            session, batch, BatchStatus.COMPLETED, completed_at=now, output_file_id="file_1"
        )
    )
    [told] = await outbox(post)
    assert told.type == "batch.completed"
    assert told.data == {
        "id": batch.id,
        "status": "completed",
        "model": "m",
        "endpoint": "/v1/completions",
        "total": 1,
        "output_file_id": "file_1",
        "error_file_id": None,
        "created_at": int(batch.created_at.timestamp()),
        "finished_at": int(now.timestamp()),
    }


@pytest.mark.parametrize(
    ("before", "after", "moment"),
    [
        ("validating", BatchStatus.FAILED, "failed_at"),
        ("in_progress", BatchStatus.EXPIRED, "expired_at"),
        ("cancelling", BatchStatus.CANCELLED, "cancelled_at"),
    ],
)
@pytest.mark.both_engines
async def test_each_ending_of_a_batch_is_announced(post, before, after, moment):
    await post.declare(URL)
    batch, now = await post.batch(status=before), post.clock.now()
    await post.db.write(lambda s: batches.change(s, batch, after, **{moment: now}))
    await post.db.write(lambda s: batches.change(s, batch, after, **{moment: now}))
    assert [one.type for one in await outbox(post)] == [f"batch.{after}"]


async def test_a_batch_that_only_moves_on_is_not_announced(post):
    hook = await post.declare(URL)
    batch = await post.batch(webhook_id=hook.id, in_progress_at=post.clock.now())
    await post.db.write(lambda s: batches.change(s, batch, BatchStatus.IN_PROGRESS))
    assert await outbox(post) == []


# --- deployments ----------------------------------------------------------------------------------


def deployment(now, phase):
    return Deployment(
        id="dep_1",
        project_id="prj_1",
        name="smol",
        mode="realtime",
        spec={},
        plan={},
        conditions=[],
        revision_id="rev_1",
        phase=phase,
        created_at=now,
        updated_at=now,
    )


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("provisioning", "ready", ["deployment.ready"]),
        ("ready", "degraded", ["deployment.degraded"]),
        ("degraded", "failed", ["deployment.failed"]),
        ("degraded", "ready", ["deployment.ready"]),
        ("waking", "ready", []),
        ("idle", "ready", []),
        ("ready", "ready", []),
        ("ready", "idle", []),
    ],
)
async def test_a_deployment_tells_of_trouble_and_of_its_end_but_not_of_each_wake(
    post, before, after, told
):
    await post.declare(URL)
    now = post.clock.now()

    def unit(session: Session) -> None:
        row = deployment(now, before)
        session.add(row)
        session.flush()
        change_deployment(session, row, now, phase=after)

    await post.db.write(unit)
    assert [one.type for one in await outbox(post)] == told


async def test_a_rollout_that_goes_back_is_announced_once(post):
    await post.declare(URL)
    now = post.clock.now()

    def unit(session: Session) -> None:
        session.connection().exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        session.add(deployment(now, "ready"))
        session.flush()
        row = Rollout(
            id="rol_1",
            project_id="prj_1",
            deployment_id="dep_1",
            from_revision_id="rev_1",
            to_revision_id="rev_2",
            options={},
            phase="rolling_back",
            reason="ErrorRate",
            message="m",
            created_at=now,
            updated_at=now,
        )
        session.add(row)
        session.flush()
        change_rollout(session, row, now, phase="rolled_back")
        change_rollout(session, row, now, message="n")
        found = session.exec(select(WebhookDelivery)).one()
        assert (found.type, found.data["deployment"]) == ("rollout.rolled_back", "smol")
        session.rollback()

    with Session(post.db.writer) as session:
        unit(session)


# --- who is told ----------------------------------------------------------------------------------


@pytest.mark.both_engines
async def test_each_webhook_is_told_what_it_asked_for_under_one_event_id(post):
    every = await post.declare(URL)
    some = await post.declare(URL, ["invocation.succeeded", "batch.failed"])
    await post.declare(URL, ["invocation.failed"])
    await post.declare(URL, [])
    await post.declare(URL, project="prj_2")
    off = await post.declare(URL)
    await post.hooks.change("prj_1", off.id, WebhookChange(enabled=False))
    gone = await post.declare(URL)
    await post.hooks.delete("prj_1", gone.id)
    lease, now = await running(post), post.clock.now()
    await post.db.write(lambda session: leases.succeed(session, lease, now, RESULT))
    told = await outbox(post)
    assert sorted(one.webhook_id for one in told) == sorted([every.id, some.id])
    assert len({one.event_id for one in told}) == 1
    assert len({one.id for one in told}) == 2


async def test_a_request_that_names_a_webhook_is_told_to_it_whatever_its_events(post):
    named = await post.declare(URL, [])
    other = await post.declare(URL, ["invocation.succeeded"])
    lease, now = await running(post, webhook_id=named.id), post.clock.now()
    await post.db.write(lambda session: leases.succeed(session, lease, now, RESULT))
    assert sorted(one.webhook_id for one in await outbox(post)) == sorted([named.id, other.id])


async def test_a_project_without_webhooks_pays_one_query_for_each_ending(post):
    await post.declare(URL, project="prj_2")
    lease, now = await running(post), post.clock.now()
    asked = []

    @event.listens_for(post.db.writer, "before_cursor_execute")
    def _note(_connection, _cursor, statement, parameters, *_):
        asked.append((statement, parameters))

    await post.db.write(lambda session: leases.succeed(session, lease, now, RESULT))
    assert [statement.split()[0] for statement, _ in asked] == ["BEGIN", "UPDATE", "SELECT"]
    statement, parameters = asked[-1]
    with post.db.writer.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        steps = " ".join(row[3] for row in plan)
    assert "ix_webhook_living" in steps
    assert "SCAN" not in steps


def test_every_ending_can_be_subscribed_to():
    kinds = {str(kind) for kind in WebhookEvent}
    finals = {f"invocation.{state}" for state in InvocationState if state.is_final}
    finals |= {f"batch.{status}" for status in BatchStatus if status.is_final}
    assert finals <= kinds
