"""From the outbox to a receiver: signed, tried again, given up, sent anew, whatever dies."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest
from aiohttp import web
from sqlmodel import Session, select
from standardwebhooks.webhooks import Webhook as Reference
from standardwebhooks.webhooks import WebhookVerificationError

from tidegate.protocol.webhooks import DeliveryState, ReplayRequest, RotateRequest, WebhookChange
from tidegate_controlplane.errors import Conflict
from tidegate_controlplane.store import deliveries, webhooks
from tidegate_controlplane.store.deliveries import DeliveryLease
from tidegate_controlplane.store.tables import Webhook, WebhookDelivery
from tidegate_controlplane.webhooks.secret import SecretBox

DELIVERED, DEAD, PENDING = DeliveryState.DELIVERED, DeliveryState.DEAD, DeliveryState.PENDING


def verified(secret, received):
    """What the reference library makes of it."""
    return Reference(secret).verify(received.body, received.headers)


@pytest.mark.both_engines
async def test_an_event_is_delivered_and_the_reference_library_verifies_it(post, receiver):
    hook = await post.declare(receiver.url)
    async with post.delivering():
        sent = await post.hooks.test("prj_1", hook.id)
        [delivery] = await post.ended(hook.id)
    [received] = receiver.received
    payload = verified(hook.secret, received)
    assert payload == json.loads(received.body)
    assert set(payload) == {"type", "timestamp", "data"}
    assert (payload["type"], payload["data"]) == ("webhook.test", {"id": hook.id})
    assert received.headers["content-type"] == "application/json"
    assert received.event == sent.event == delivery.event
    assert (delivery.id, delivery.status) == (sent.id, DELIVERED)
    [tried] = delivery.tries
    assert (tried.status_code, tried.error, tried.latency_ms > 0) == (204, None, True)


async def test_a_changed_body_another_secret_and_an_old_timestamp_are_not_verified(post, receiver):
    hook, other = await post.declare(receiver.url), await post.declare(receiver.url, [])
    async with post.delivering():
        await post.hooks.test("prj_1", hook.id)
        await post.ended(hook.id)
    [received] = receiver.received
    with pytest.raises(WebhookVerificationError):
        verified(other.secret, received)
    with pytest.raises(WebhookVerificationError):
        Reference(hook.secret).verify(received.body + b" ", received.headers)
    stale = {**received.headers, "webhook-timestamp": "1700000000"}
    with pytest.raises(WebhookVerificationError):
        Reference(hook.secret).verify(received.body, stale)


async def test_while_a_rotation_overlaps_both_secrets_sign_and_afterwards_only_the_new(
    post, receiver
):
    hook = await post.declare(receiver.url)
    rotated = await post.hooks.rotate("prj_1", hook.id, RotateRequest(overlap_s=60))
    assert rotated.secret != hook.secret
    async with post.delivering():
        await post.hooks.test("prj_1", hook.id)
        [during] = await receiver.has(1)
        verified(hook.secret, during)
        verified(rotated.secret, during)
        await post.ended(hook.id)
        post.clock.ahead = timedelta(seconds=61)
        await post.hooks.test("prj_1", hook.id)
        await receiver.has(2)
    after = receiver.received[1]
    assert len(after.headers["webhook-signature"].split(" ")) == 1
    again = await post.hooks.rotate("prj_1", hook.id, RotateRequest(overlap_s=0))
    assert again.former_secret_until is None


async def test_a_500_is_tried_again_with_the_same_id_and_body_until_it_is_taken(post, receiver):
    receiver.statuses = [500, 503]
    hook = await post.declare(receiver.url)
    async with post.delivering():
        await post.hooks.test("prj_1", hook.id)
        [delivery] = await post.ended(hook.id)
    assert [tried.status_code for tried in delivery.tries] == [500, 503, 204]
    assert len({received.event for received in receiver.received}) == 1
    assert len({received.body for received in receiver.received}) == 1
    for received in receiver.received:
        verified(hook.secret, received)
    assert (await post.hooks.get("prj_1", hook.id)).failing_since is None


@pytest.mark.both_engines
async def test_what_fails_every_try_is_given_up_kept_and_can_be_replayed(post, receiver):
    receiver.statuses = [500] * 4
    hook = await post.declare(receiver.url)
    async with post.delivering():
        sent = await post.hooks.test("prj_1", hook.id)
        [dead] = await post.ended(hook.id)
        assert (dead.status, len(dead.tries)) == (DEAD, 4)
        assert (await post.hooks.get("prj_1", hook.id)).failing_since is not None
        again = await post.hooks.replay("prj_1", hook.id, sent.id)
        assert (again.status, again.next_try_at is not None) == (PENDING, True)
        await receiver.has(5)
        [delivery] = await post.ended(hook.id)
    assert delivery.status is DELIVERED
    assert [tried.status_code for tried in delivery.tries] == [500, 500, 500, 500, 204]
    assert {received.event for received in receiver.received} == {sent.event}


async def test_what_has_not_ended_is_not_replayed(post, receiver):
    hook = await post.declare(receiver.url)
    sent = await post.hooks.test("prj_1", hook.id)
    with pytest.raises(Conflict, match="is pending"):
        await post.hooks.replay("prj_1", hook.id, sent.id)


async def test_a_range_of_time_is_replayed_what_was_given_up_or_all_of_it(post, receiver):
    hook = await post.declare(receiver.url)
    start = post.clock.now()
    receiver.statuses = [500] * 4
    async with post.delivering():
        await post.hooks.test("prj_1", hook.id)
        await post.ended(hook.id)
        middle = post.clock.now()
        await post.hooks.test("prj_1", hook.id)
        await post.ended(hook.id, 2)
        later = ReplayRequest(since=middle)
        assert (await post.hooks.replay_range("prj_1", hook.id, later)).replayed == 0
        both = ReplayRequest(since=start, until=middle)
        assert (await post.hooks.replay_range("prj_1", hook.id, both)).replayed == 1
        await receiver.has(6)
        await post.ended(hook.id, 2)
        every = ReplayRequest(since=start, delivered=True)
        assert (await post.hooks.replay_range("prj_1", hook.id, every)).replayed == 2
        await receiver.has(8)


async def test_retry_after_is_waited_for(post, receiver):
    async def busy(_request):
        receiver.behaviour = None
        return web.Response(status=429, headers={"retry-after": "600"})

    receiver.behaviour = busy
    hook = await post.declare(receiver.url)
    async with post.delivering():
        await post.hooks.test("prj_1", hook.id)
        await receiver.has(1)
        while (delivery := (await post.deliveries(hook.id))[0]).status is not PENDING:
            await asyncio.sleep(0.005)
        asked = delivery.next_try_at - delivery.tries[0].at
        assert timedelta(seconds=600) <= asked < timedelta(seconds=660)


@pytest.mark.both_engines
async def test_gone_disables_the_webhook_and_tells_the_others(post, receiver):
    receiver.statuses = [410]
    hook = await post.declare(receiver.url, [])
    other = await post.declare(receiver.url, ["webhook.disabled"])
    async with post.delivering():
        await post.hooks.test("prj_1", hook.id)
        [dead] = await post.ended(hook.id)
        [told] = await post.ended(other.id)
    assert (dead.status, told.type) == (DEAD, "webhook.disabled")
    assert told.data == {"id": hook.id, "reason": "the receiver answered 410 Gone"}
    view = await post.hooks.get("prj_1", hook.id)
    assert (view.enabled, view.disabled_reason) == (False, "the receiver answered 410 Gone")
    with pytest.raises(Conflict, match="is disabled"):
        await post.hooks.test("prj_1", hook.id)
    enabled = await post.hooks.change("prj_1", hook.id, WebhookChange(enabled=True))
    assert (enabled.enabled, enabled.disabled_reason) == (True, None)


async def test_failing_for_days_disables_the_webhook(post, receiver):
    receiver.statuses = [500] * 8
    hook = await post.declare(receiver.url)
    async with post.delivering():
        await post.hooks.test("prj_1", hook.id)
        await post.ended(hook.id)
        post.clock.ahead = timedelta(days=5, seconds=1)
        await post.hooks.test("prj_1", hook.id)
        await post.ended(hook.id, 2)
    assert "failed for 5.0 days" in (await post.hooks.get("prj_1", hook.id)).disabled_reason


async def test_what_waits_for_a_disabled_webhook_is_sent_once_it_is_enabled(post, receiver):
    hook = await post.declare(receiver.url)
    await post.hooks.test("prj_1", hook.id)
    await post.hooks.change("prj_1", hook.id, WebhookChange(enabled=False))
    async with post.delivering() as deliverer:
        await deliverer.tick()
        assert receiver.received == []
        await post.hooks.change("prj_1", hook.id, WebhookChange(enabled=True))
        await receiver.has(1)


async def test_what_waits_for_a_deleted_webhook_is_given_up(post, receiver):
    hook = await post.declare(receiver.url)
    await post.hooks.test("prj_1", hook.id)
    await post.hooks.delete("prj_1", hook.id)
    async with post.delivering() as deliverer:
        await deliverer.tick()
    [row] = await rows(post)
    assert (row.status, receiver.received) == (DEAD, [])


async def rows(post):
    return await post.db.read(lambda session: list(session.exec(select(WebhookDelivery))))


# --- receivers that misbehave ---------------------------------------------------------------------


async def test_a_receiver_that_hangs_is_left_and_holds_up_nobody_else(post, receiver, kit):
    async def hang(request):
        if request.path == "/slow":
            await asyncio.sleep(30)
        return web.Response(status=204)

    receiver.behaviour = hang
    post = post.with_settings(concurrency=4, concurrency_each=2, timeout_s=1.0, tries=30)
    slow = await post.declare(receiver.url.replace("/hook", "/slow"))
    quick = await post.declare(receiver.url)
    for _ in range(6):
        await post.hooks.test("prj_1", slow.id)
    for _ in range(6):
        await post.hooks.test("prj_1", quick.id)
    async with post.delivering():
        await post.ended(quick.id, 6)
        ended = sum(one.status.is_final for one in await post.deliveries(slow.id))
        assert ended == 0, "the quick ones are through before the slow ones have ended their tries"
        await kit.until(lambda: sum(one.path == "/slow" for one in receiver.received) >= 3)
        tries = [tried for one in await post.deliveries(slow.id) for tried in one.tries]
        assert (tries[0].status_code, tries[0].error) == (None, "no answer within 1 s")
    assert receiver.most_at_once <= 4


async def test_a_receiver_that_closes_without_an_answer_is_tried_again(post, receiver):
    async def close(request):
        receiver.behaviour = None
        request.transport.abort()
        return web.Response()

    receiver.behaviour = close
    hook = await post.declare(receiver.url)
    async with post.delivering():
        await post.hooks.test("prj_1", hook.id)
        [delivery] = await post.ended(hook.id)
    assert delivery.status is DELIVERED
    assert delivery.tries[0].error.startswith("no answer: ")


async def test_nobody_there_is_an_error_in_words(post):
    post = post.with_settings(ports=(1,))
    hook = await post.declare("http://127.0.0.1:1/")
    async with post.delivering():
        await post.hooks.test("prj_1", hook.id)
        [delivery] = await post.ended(hook.id)
    assert delivery.status is DEAD
    assert "refused" in delivery.tries[0].error.lower()


async def test_a_redirect_to_a_metadata_service_is_not_followed(post, receiver):
    async def redirect(_request):
        raise web.HTTPFound("http://169.254.169.254/latest/meta-data/")

    receiver.behaviour = redirect
    hook = await post.declare(receiver.url)
    async with post.delivering():
        await post.hooks.test("prj_1", hook.id)
        [delivery] = await post.ended(hook.id)
    assert delivery.status is DEAD
    assert {tried.status_code for tried in delivery.tries} == {302}
    assert "redirects, which is not followed" in delivery.tries[0].error
    assert {received.path for received in receiver.received} == {"/hook"}


async def test_of_an_endless_answer_only_the_first_bytes_are_read(post, receiver):
    async def endless(request):
        answer = web.StreamResponse(status=200)
        await answer.prepare(request)
        while True:
            await answer.write(b"x" * 65536)

    receiver.behaviour = endless
    hook = await post.declare(receiver.url)
    async with post.delivering():
        await post.hooks.test("prj_1", hook.id)
        [delivery] = await post.ended(hook.id)
    assert delivery.status is DELIVERED
    assert delivery.tries[0].answer == "x" * 1024


async def test_an_answer_that_stops_in_the_middle_has_been_given(post, receiver):
    async def drip(request):
        answer = web.StreamResponse(status=202)
        await answer.prepare(request)
        await answer.write(b"ok")
        await asyncio.sleep(30)
        return answer

    receiver.behaviour = drip
    hook = await post.declare(receiver.url)
    async with post.with_settings(timeout_s=2).delivering():
        await post.hooks.test("prj_1", hook.id)
        [delivery] = await post.ended(hook.id)
    assert (delivery.status, delivery.tries[0].answer) == (DELIVERED, "ok")


# --- leases ---------------------------------------------------------------------------------------


async def claimed(post, hook):
    [(row, _)] = await post.db.write(
        lambda session: deliveries.claim(session, "other", post.clock.now(), {hook.id: 9})
    )
    return row


async def test_what_another_process_claimed_and_never_ended_is_sent_after_its_lease(post, receiver):
    hook = await post.declare(receiver.url)
    await post.hooks.test("prj_1", hook.id)
    await claimed(post, hook)
    async with post.with_settings(lease_s=600).delivering() as patient:
        for _ in range(3):
            await patient.tick()
        assert receiver.received == [], "its lease has not run out"
    async with post.with_settings(timeout_s=0.5, lease_s=0.6).delivering():
        await receiver.has(1)
        [delivery] = await post.ended(hook.id)
    assert delivery.status is DELIVERED


async def test_a_jump_of_the_clock_by_a_day_sends_nothing_twice(post, receiver):
    release = asyncio.Event()

    async def slow(_request):
        await release.wait()
        return web.Response(status=204)

    hook = await post.declare(receiver.url)
    async with post.delivering() as deliverer:
        await post.hooks.test("prj_1", hook.id)
        await post.ended(hook.id)
        receiver.behaviour = slow
        await post.hooks.test("prj_1", hook.id)
        await receiver.has(2)
        for ahead in (timedelta(days=1), timedelta(days=-1)):
            post.clock.ahead = ahead
            await deliverer.tick()
        release.set()
        await post.ended(hook.id, 2)
        await asyncio.sleep(0.1)
    assert len(receiver.received) == 2


@pytest.mark.both_engines
async def test_two_processes_at_one_database_send_each_event_once(post, receiver, kit):
    hooks = [await post.declare(receiver.url) for _ in range(3)]
    for hook in hooks:
        for _ in range(10):
            await post.hooks.test("prj_1", hook.id)
    async with post.delivering(), post.delivering():
        for hook in hooks:
            await post.ended(hook.id, 10)
    events = [received.event for received in receiver.received]
    assert (len(events), len(set(events))) == (30, 30)


@pytest.mark.both_engines
async def test_a_try_whose_lease_was_taken_back_writes_nothing(post, receiver):
    hook = await post.declare(receiver.url)
    await post.hooks.test("prj_1", hook.id)
    row = await claimed(post, hook)
    lease, now = DeliveryLease.of(row), post.clock.now()

    def unit(session: Session) -> None:
        deliveries.give_back(session, [lease], counted=True)
        assert not deliveries.end(session, lease, DELIVERED, now, [])
        assert not deliveries.again(session, lease, now, [])
        [(again, _)] = deliveries.claim(session, "third", now, {hook.id: 1})
        assert (again.lease_epoch, again.number) == (2, 2)
        assert not deliveries.end(session, lease, DELIVERED, now, [])
        assert deliveries.end(session, DeliveryLease.of(again), DELIVERED, now, [])

    await post.db.write(unit)


async def test_a_stop_hands_back_what_it_cannot_end_and_counts_no_try(post, receiver):
    async def hang(_request):
        await asyncio.sleep(30)

    receiver.behaviour = hang
    hook = await post.declare(receiver.url)
    async with post.delivering():
        await post.hooks.test("prj_1", hook.id)
        await receiver.has(1)
    [row] = await rows(post)
    assert (row.status, row.number, row.lease_owner) == (PENDING, 0, None)


# --- what is kept ---------------------------------------------------------------------------------


async def test_the_database_alone_does_not_give_a_secret_away(post, receiver):
    hook = await post.declare(receiver.url)
    await post.hooks.rotate("prj_1", hook.id, RotateRequest())
    with Session(post.db.writer) as session:
        row = session.get_one(Webhook, hook.id)
        assert post.box.open(row.former_secret, hook.id) == hook.secret
        session.rollback()
    secret = hook.secret.removeprefix("whsec_").encode()
    for path in post.settings.data_dir.glob("tidegate.db*"):
        assert secret not in path.read_bytes()


async def test_a_secret_that_cannot_be_read_is_an_error_of_the_try(post, receiver):
    hook = await post.declare(receiver.url)
    post.box._cipher = SecretBox(b"another pepper of the same size!")._cipher
    async with post.delivering():
        await post.hooks.test("prj_1", hook.id)
        [dead] = await post.ended(hook.id)
    assert dead.status is DEAD
    assert "rotate the secret" in dead.tries[0].error
    assert receiver.received == []


@pytest.mark.both_engines
async def test_deliveries_are_forgotten_after_their_retention_and_waiting_ones_are_not(
    post, receiver
):
    hook = await post.declare(receiver.url)
    async with post.delivering() as deliverer:
        await post.hooks.test("prj_1", hook.id)
        await post.ended(hook.id)
        parked = await post.declare(receiver.url)
        await post.hooks.test("prj_1", parked.id)
        await post.ended(parked.id)
        await deliverer.sweep()
        assert len(await rows(post)) == 2
        await post.hooks.delete("prj_1", parked.id)
    await post.hooks.test("prj_1", hook.id)
    before = post.clock.now() + timedelta(days=15)

    def unit(session: Session) -> None:
        assert deliveries.sweep(session, before) == 2
        webhooks.forget_deleted(session)
        assert [row.status for row in session.exec(select(WebhookDelivery))] == [PENDING]
        assert session.exec(select(Webhook.id)).all() == [hook.id]

    await post.db.write(unit)
