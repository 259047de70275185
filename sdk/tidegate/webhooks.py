"""For those who receive webhooks: is it ours, and what does it say?

    >>> from tidegate import webhooks
    >>> event = webhooks.verify(request.headers, await request.body(), SECRET)  # doctest: +SKIP
    >>> print(event.type, event.data["id"])                                     # doctest: +SKIP

The signature is HMAC-SHA-256 over `id.timestamp.body`, as https://www.standardwebhooks.com says, so
any of its libraries verifies our webhooks as well.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping

from pydantic import ValidationError

from tidegate.errors import InvalidSignature
from tidegate.protocol.webhooks import WebhookPayload

__all__ = ["InvalidSignature", "WebhookPayload", "sign", "verify"]

SECRET_PREFIX = "whsec_"
VERSION = "v1"
TOLERANCE_S = 300.0
"""A captured delivery cannot be sent anew for longer than this."""


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secret: str,
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> WebhookPayload:
    """The event in `body`, the raw bytes as they came, if `secret` signed it.

    `tolerance_s` is how far its timestamp may be from `now` (unix seconds; the clock's when None).
    Raises InvalidSignature. Comparison takes the same time whether or not a signature is near.
    """
    given = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp = _header(given, "webhook-id"), _header(given, "webhook-timestamp")
    _check_age(timestamp, time.time() if now is None else now, tolerance_s)
    expected = sign(secret, message_id, int(timestamp), body).encode()
    offered = _header(given, "webhook-signature").split(" ")
    matches = [hmac.compare_digest(expected, one.encode()) for one in offered]
    if not any(matches):
        raise InvalidSignature(
            "webhook-signature: no signature is by this secret over these bytes; verify the raw "
            "body, and see that the secret is the webhook's own"
        )
    return _payload(body)


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """`v1,<base64>` of one delivery; raises InvalidSignature when the secret is not one."""
    signed = b".".join([message_id.encode(), str(timestamp).encode(), body])
    digest = hmac.digest(_key(secret), signed, hashlib.sha256)
    return f"{VERSION},{base64.b64encode(digest).decode()}"


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise InvalidSignature("secret: expected whsec_ and base64, as it was shown at creation")
    return key


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise InvalidSignature(f"{name}: the header is missing; is this a webhook?")
    return value


def _check_age(timestamp: str, now: float, tolerance_s: float) -> None:
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise InvalidSignature(f"webhook-timestamp: {timestamp[:32]!r} is not unix seconds")
    apart_s = abs(now - int(timestamp))
    if apart_s > tolerance_s:
        raise InvalidSignature(
            f"webhook-timestamp: {timestamp} is {apart_s:.0f} s from now, more than "
            f"{tolerance_s:g} s; it may be an old one sent again, or a clock is wrong"
        )


def _payload(body: bytes) -> WebhookPayload:
    try:
        return WebhookPayload.model_validate_json(body)
    except ValidationError as error:
        raise InvalidSignature("the body is signed, but is not a webhook's payload") from error
