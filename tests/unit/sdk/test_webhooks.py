"""Webhooks from the receiver's side: what is ours, and what only claims to be."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Reference

from tidegate import InvalidSignature, webhooks

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
