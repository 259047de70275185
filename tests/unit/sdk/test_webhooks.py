"""Webhooks from the receiver's side: what is ours, and what only claims to be."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Reference
from typer.testing import CliRunner

from tidegate import AsyncClient, Client, InvalidSignature, webhooks
from tidegate.cli.app import app
from tidegate.protocol.webhooks import WebhookEvent

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(32)).decode()
NOW = 1_767_225_600
BODY = json.dumps(
    {"type": "batch.completed", "timestamp": "2026-01-01T00:00:00+00:00", "data": {"id": "b"}}
).encode()


def headers(secret=SECRET, body=BODY, timestamp=NOW, message="evt_1"):
    return {
        "Webhook-Id": message,
        "Webhook-Timestamp": str(timestamp),
        "Webhook-Signature": webhooks.sign(secret, message, timestamp, body),
    }


def verify(given, body=BODY, secret=SECRET, **more):
    return webhooks.verify(given, body, secret, now=NOW, **more)


def test_what_is_signed_by_the_secret_is_read():
    event = verify(headers())
    assert (event.type, event.data) == ("batch.completed", {"id": "b"})
    assert event.timestamp == datetime(2026, 1, 1, tzinfo=UTC)


@given(st.binary(min_size=1, max_size=64), st.text(alphabet="evt_0123", min_size=1), st.text())
def test_the_signature_is_that_of_the_reference_library(key, message, text):
    secret = "whsec_" + base64.b64encode(key).decode()
    moment = datetime.fromtimestamp(NOW, tz=UTC)
    assert webhooks.sign(secret, message, NOW, text.encode()) == Reference(secret).sign(
        message, moment, text
    )


def test_any_of_several_signatures_is_enough_and_unknown_versions_are_passed_over():
    good = headers()["Webhook-Signature"]
    other = headers(secret=OTHER)["Webhook-Signature"]
    for offered in (f"{other} {good}", f"{good} {other}", f"v2,abc {good}", f"v1a,x {good}"):
        assert verify({**headers(), "Webhook-Signature": offered}).type == "batch.completed"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Webhook-Id": "evt_2"}, "no signature is by this secret"),
        ({"Webhook-Timestamp": str(NOW + 1)}, "no signature is by this secret"),
        ({"Webhook-Signature": "v1,AAAA"}, "no signature is by this secret"),
        ({"Webhook-Signature": "é"}, "no signature is by this secret"),
        ({"Webhook-Signature": ""}, "webhook-signature: the header is missing"),
        ({"Webhook-Id": ""}, "webhook-id: the header is missing"),
        ({"Webhook-Timestamp": "soon"}, "'soon' is not unix seconds"),
        ({"Webhook-Timestamp": "-1"}, "is not unix seconds"),
        ({"Webhook-Timestamp": "1" * 400}, "is not unix seconds"),
    ],
)
def test_what_is_changed_or_missing_is_refused_by_name(change, said):
    with pytest.raises(InvalidSignature, match=said):
        verify({**headers(), **change})


def test_a_changed_body_and_another_secret_are_refused():
    for body, secret in ((BODY + b" ", SECRET), (BODY, OTHER)):
        with pytest.raises(InvalidSignature, match="no signature"):
            verify(headers(), body, secret)


@pytest.mark.parametrize("apart_s", [-301, 301])
def test_what_is_too_old_or_too_new_is_refused(apart_s):
    with pytest.raises(InvalidSignature, match="301 s from now"):
        verify(headers(timestamp=NOW + apart_s))
    assert verify(headers(timestamp=NOW + apart_s), tolerance_s=400)
    assert verify(headers(timestamp=NOW + 300))


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_*", "whsec_abc"])
def test_a_secret_that_is_none_is_refused_with_its_shape(secret):
    with pytest.raises(InvalidSignature, match="expected whsec_ and base64"):
        verify(headers(), secret=secret)


def test_a_signed_body_that_is_no_payload_is_refused():
    for body in (b"[]", b'{"type": "x"}', b"\xff"):
        with pytest.raises(InvalidSignature, match="not a webhook's payload"):
            verify(headers(body=body), body)


def test_the_clock_is_asked_when_no_time_is_given():
    with pytest.raises(InvalidSignature, match="s from now"):
        webhooks.verify(headers(timestamp=1_000_000_000), BODY, SECRET)


# --- declaring them: both clients and the command line --------------------------------------------

ROOT = "/api/v1/webhooks"
MOMENT = "2026-01-01T00:00:00Z"


def hook(**more):
    return {
        "id": "wh_1",
        "url": "https://example.com/",
        "events": ["batch.failed"],
        "enabled": True,
        "created_at": MOMENT,
        "updated_at": MOMENT,
        **more,
    }


def delivery(**more):
    return {
        "id": "whd_1",
        "webhook": "wh_1",
        "event": "evt_1",
        "type": "batch.failed",
        "status": "dead",
        "data": {"id": "b"},
        "created_at": MOMENT,
        "tries": [{"at": MOMENT, "status_code": 500, "latency_ms": 12.3}],
        **more,
    }


def run(*arguments):
    result = CliRunner().invoke(app, ["webhooks", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_create_prints_the_secret_alone_so_that_it_can_be_piped(served):
    served.on("POST", ROOT, hook(secret="whsec_x"))
    result = run("create", "https://example.com/", "-e", "batch.failed", "--description", "d")
    assert (result.stdout, result.exit_code) == ("whsec_x\n", 0)
    assert "wh_1" in result.stderr
    assert served.asked[-1].json == {
        "url": "https://example.com/",
        "events": ["batch.failed"],
        "description": "d",
    }
    run("create", "https://example.com/")
    assert served.asked[-1].json["events"] == [str(kind) for kind in WebhookEvent]


def test_ls_tells_why_one_was_given_up(served):
    served.on("GET", ROOT, {"data": [hook(enabled=False, disabled_reason="410 Gone")]})
    assert "410 Gone" in run("ls").stdout


def test_deliveries_tell_how_the_last_try_went(served):
    found = [delivery(), delivery(id="whd_2", tries=[])]
    served.on("GET", f"{ROOT}/wh_1/deliveries", {"data": found})
    said = run("deliveries", "wh_1", "--status", "dead", "--limit", "1").stdout
    assert "500 in 12 ms" in said
    assert "whd_2" not in said
    assert served.asked[-1].query["status"] == "dead"


def test_replay_takes_one_delivery_or_a_range(served):
    served.on("POST", f"{ROOT}/wh_1/deliveries/whd_1/replay", delivery(status="pending"))
    served.on("POST", f"{ROOT}/wh_1/replay", {"replayed": 3})
    assert "whd_1 is on its way" in run("replay", "wh_1", "whd_1").stdout
    result = run("replay", "wh_1", "--since", "2026-01-01T00:00+00:00", "--delivered")
    assert result.stdout == "3 sent again\n"
    assert served.asked[-1].json == {"since": "2026-01-01T00:00:00+00:00", "delivered": True}
    for wrong in (["wh_1"], ["wh_1", "whd_1", "--since", MOMENT], ["wh_1", "--since", "soon"]):
        assert run("replay", *wrong).exit_code == 1


def test_the_other_commands_ask_what_they_say(served):
    served.on("POST", f"{ROOT}/wh_1/rotate-secret", hook(secret="whsec_y"))
    served.on("POST", f"{ROOT}/wh_1/test", delivery(status="pending"))
    served.on("PATCH", f"{ROOT}/wh_1", hook(), hook(enabled=False))
    served.on("DELETE", f"{ROOT}/wh_1", hook())
    assert run("rotate", "wh_1", "--overlap", "60").stdout == "whsec_y\n"
    assert served.asked[-1].json == {"overlap_s": 60.0}
    assert "on its way" in run("test", "wh_1").stdout
    assert run("enable", "wh_1").stdout == "webhook wh_1 is enabled\n"
    assert served.asked[-1].json == {"enabled": True}
    assert run("disable", "wh_1").stdout == "webhook wh_1 is disabled\n"
    assert run("delete", "wh_1").stdout == "webhook wh_1 is deleted\n"


async def test_both_clients_declare_look_and_send_again(canned):
    canned.on("POST", ROOT, hook(secret="whsec_x"))
    canned.on("GET", f"{ROOT}/wh_1/deliveries", {"data": [delivery()]})
    canned.on("PATCH", f"{ROOT}/wh_1", hook())
    canned.on("POST", f"{ROOT}/wh_1/replay", {"replayed": 2})
    since = datetime(2026, 1, 1, tzinfo=UTC)
    with Client(url="http://x", api_key="k", transport=canned.transport()) as client:
        assert client.webhooks.create("https://e.com/", ["batch.failed"]).secret == "whsec_x"
        assert [one.status for one in client.webhooks.deliveries("wh_1")] == ["dead"]
        assert client.webhooks.change("wh_1", events=[]).id == "wh_1"
        assert client.webhooks.replay_range("wh_1", since) == 2
    assert [asked.json for asked in canned.asked if asked.method == "PATCH"] == [{"events": []}]
    async with AsyncClient(url="http://x", api_key="k", transport=canned.transport()) as awaited:
        assert (await awaited.webhooks.create("https://e.com/", [])).secret == "whsec_x"
        assert [one.id async for one in awaited.webhooks.deliveries("wh_1")] == ["whd_1"]
        assert await awaited.webhooks.replay_range("wh_1", since, since) == 2


def test_a_request_and_a_batch_can_name_the_webhook_that_is_told_of_them(canned, shapes):
    canned.on("POST", "/v1/invocations", shapes.invocation("queued"))
    canned.on("POST", "/v1/files", shapes.file())
    canned.on("POST", "/v1/batches", shapes.batch("validating"))
    with Client(url="http://x", api_key="k", transport=canned.transport()) as client:
        client.model("smol").submit("hi", webhook="wh_1")
        client.model("smol").batch(["hi"], webhook="wh_1")
        client.batches.create("file_in", "/v1/completions", webhook="wh_2")
        client.model("smol").submit("hi")
        client.batches.create("file_in", "/v1/completions")
    named = [asked.query.get("webhook") for asked in canned.asked if "invocations" in asked.path]
    assert named == ["wh_1", None]
    batches = [asked.json.get("webhook") for asked in canned.asked if "batches" in asked.path]
    assert batches == ["wh_1", "wh_2", None]
