"""The routes, as the platform serves them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tidegate import webhooks
from tidegate_controlplane.app import build_app
from tidegate_controlplane.connection import connect
from tidegate_controlplane.errors import Conflict, NotFound
from tidegate_controlplane.process import running
from tidegate_controlplane.routes import HANDLERS

ROOT = "/api/v1/webhooks"
UNKNOWN = "wh_01m7yg8s3w9vmzqvz6b94e6hpe"


@pytest.fixture
async def http(post):
    """A client of the whole platform, with an admin key."""
    post.db.close()
    async with running(post.settings.model_copy(update={"port": 0})) as (services, _):
        key = await connect(services, "http://platform")
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(build_app(services, HANDLERS)),
            base_url="http://platform",
            headers={"authorization": f"Bearer {key}"},
        ) as client:
            yield client


async def declare(http, url, events=("batch.completed",)):
    answer = await http.post(ROOT, json={"url": url, "events": list(events)})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_webhook_is_declared_read_changed_and_deleted(http, receiver):
    made = await declare(http, receiver.url)
    assert made["secret"].startswith("whsec_")
    path = f"{ROOT}/{made['id']}"
    read = (await http.get(path)).json()
    assert read == {name: value for name, value in made.items() if name != "secret"}
    assert (await http.get(ROOT)).json()["data"] == [read]
    change = {"events": ["batch.failed", "batch.failed"], "description": "d"}
    changed = (await http.patch(path, json=change)).json()
    assert (changed["events"], changed["description"]) == (["batch.failed"], "d")
    assert (changed["url"], changed["enabled"]) == (receiver.url, True)
    assert (await http.delete(path)).status_code == 200
    assert (await http.get(path)).status_code == 404
    assert (await http.get(ROOT)).json()["data"] == []


async def test_a_test_event_arrives_signed_and_its_delivery_can_be_read_and_replayed(
    http, receiver
):
    made = await declare(http, receiver.url)
    path = f"{ROOT}/{made['id']}"
    sent = await http.post(f"{path}/test")
    assert sent.status_code == 202
    [received] = await receiver.has(1)
    assert webhooks.verify(received.headers, received.body, made["secret"]).type == "webhook.test"
    one = f"{path}/deliveries/{sent.json()['id']}"
    while (found := (await http.get(one)).json())["status"] != "delivered":
        pass
    assert found["tries"][0]["status_code"] == 204
    assert (await http.get(f"{path}/deliveries?status=delivered")).json()["data"] == [found]
    assert (await http.get(f"{path}/deliveries?status=dead")).json()["data"] == []
    assert (await http.post(f"{one}/replay")).status_code == 202
    await receiver.has(2)
    since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    body = {"since": since, "delivered": True}
    while (await http.post(f"{path}/replay", json=body)).json()["replayed"] != 1:
        pass
    await receiver.has(3)


async def test_the_secret_is_rotated(http, receiver):
    made = await declare(http, receiver.url)
    rotated = await http.post(f"{ROOT}/{made['id']}/rotate-secret", json={"overlap_s": 5})
    assert rotated.status_code == 200
    assert rotated.json()["secret"] != made["secret"]
    assert rotated.json()["former_secret_until"] is not None


async def test_what_may_not_be_is_refused_by_name(http, receiver):
    for body, field in (
        ({"url": "https://10.0.0.1/", "events": []}, "url"),
        ({"url": "https://example.com:22/", "events": []}, "url"),
        ({"url": "s3://elsewhere/", "events": []}, "url"),
        ({"url": "https://example.com/"}, "events"),
        ({"url": "https://example.com/", "events": ["batch.begun"]}, "events.0"),
        ({"url": "https://example.com/", "events": [], "secret": "mine"}, "secret"),
    ):
        answer = await http.post(ROOT, json=body)
        assert answer.status_code == 422
        assert answer.json()["issues"][0]["field"] == field
    made = await declare(http, receiver.url)
    changed = await http.patch(f"{ROOT}/{made['id']}", json={"url": "https://10.0.0.1/"})
    assert changed.json()["issues"][0]["field"] == "url"
    for body, said in (
        ({"since": "2026-01-01T00:00:00"}, "no time zone"),
        ({"since": "2026-01-02T00:00Z", "until": "2026-01-01T00:00Z"}, "later than since"),
        ({"since": "0001-01-01T00:00+14:00"}, "out of range"),
    ):
        answer = await http.post(f"{ROOT}/{made['id']}/replay", json=body)
        assert (answer.status_code, said in answer.text) == (422, True)


async def test_an_unknown_webhook_is_not_found_on_every_route(http):
    path = f"{ROOT}/{UNKNOWN}"
    since = {"since": "2026-01-01T00:00:00Z"}
    for method, place, body in (
        ("GET", path, None),
        ("PATCH", path, {}),
        ("DELETE", path, None),
        ("POST", f"{path}/rotate-secret", {}),
        ("POST", f"{path}/test", None),
        ("POST", f"{path}/replay", since),
        ("GET", f"{path}/deliveries", None),
        ("GET", f"{path}/deliveries/whd_1", None),
        ("POST", f"{path}/deliveries/whd_1/replay", None),
    ):
        answer = await http.request(method, place, json=body)
        assert answer.status_code == 404, (method, place, answer.text)


async def test_a_project_has_so_many_webhooks_and_no_more(post, receiver):
    few = post.with_settings(per_project=2)
    first = await few.declare(receiver.url)
    await few.declare(receiver.url)
    with pytest.raises(Conflict, match="2 webhooks, which is the most"):
        await few.declare(receiver.url)
    await few.declare(receiver.url, project="prj_2")
    await few.hooks.delete("prj_1", first.id)
    await few.declare(receiver.url)


async def test_another_project_sees_nothing_of_a_webhook(post, receiver):
    hook = await post.declare(receiver.url)
    sent = await post.hooks.test("prj_1", hook.id)
    assert (await post.hooks.list("prj_2", None, 10)).data == []
    other = await post.declare(receiver.url, project="prj_2")
    for asked in (
        post.hooks.get("prj_2", hook.id),
        post.hooks.test("prj_2", hook.id),
        post.hooks.deliveries("prj_2", hook.id, None, 10),
        post.hooks.delivery("prj_2", other.id, sent.id),
        post.hooks.replay("prj_2", other.id, sent.id),
    ):
        with pytest.raises(NotFound):
            await asked
