"""One try to hand an event over: judged, signed, sent, and told in full."""

from __future__ import annotations

import json
from datetime import datetime

from tidegate.protocol.webhooks import TryView
from tidegate.version import VERSION
from tidegate.webhooks import sign
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.deliveries import Tried, retry_after_s
from tidegate_controlplane.domain.destinations import (
    BucketDestination,
    ForbiddenDestination,
    Rules,
    destination,
)
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store.tables import Webhook, WebhookDelivery
from tidegate_controlplane.webhooks.bucket import Buckets
from tidegate_controlplane.webhooks.receiver import Answered, LookUp, Receivers, Unreachable
from tidegate_controlplane.webhooks.secret import SecretBox, UnreadableSecret


class Sender:
    """Speaks to receivers and buckets. Made inside the event loop; close it."""

    def __init__(self, box: SecretBox, clock: Clock, settings: Settings, look_up: LookUp) -> None:
        hooks = settings.webhooks
        self._box = box
        self._clock = clock
        self._rules = rules_of(settings)
        self._receivers = Receivers(look_up, hooks.allow_networks, hooks.timeout_s)
        self._buckets = Buckets(hooks.timeout_s)

    async def try_once(self, row: WebhookDelivery, webhook: Webhook) -> tuple[Tried, TryView]:
        """What came of it: for the next decision, and for whoever looks."""
        at, began = self._clock.now(), self._clock.monotonic()
        answer: Answered | None = None
        error: str | None = None
        try:
            answer = await self._send(row, webhook, at)
        except (Unreachable, ForbiddenDestination, UnreadableSecret) as failure:
            error = str(failure)
        view = TryView(
            at=at,
            status_code=answer.status_code if answer else None,
            latency_ms=round(1000 * (self._clock.monotonic() - began), 1),
            answer=answer.start.decode("utf-8", "replace") if answer else None,
            error=error or _redirected(answer),
        )
        asked_s = retry_after_s(answer.retry_after, self._clock.now()) if answer else None
        return Tried(view.status_code, asked_s), view

    async def close(self) -> None:
        await self._receivers.close()

    async def _send(self, row: WebhookDelivery, webhook: Webhook, at: datetime) -> Answered:
        """The url is judged anew at each try: the settings may have changed since it was given."""
        place = destination(webhook.url, self._rules)
        body = body_of(row)
        if isinstance(place, BucketDestination):
            return await self._buckets.put(place, row.event_id, body)
        return await self._receivers.post(place, self._headers(row, webhook, at, body), body)

    def _headers(
        self, row: WebhookDelivery, webhook: Webhook, at: datetime, body: bytes
    ) -> dict[str, str]:
        timestamp = int(at.timestamp())
        secrets = [self._box.open(sealed, webhook.id) for sealed in _valid_secrets(webhook, at)]
        signatures = [sign(secret, row.event_id, timestamp, body) for secret in secrets]
        return {
            "content-type": "application/json",
            "user-agent": f"tidegate-webhooks/{VERSION}",
            "webhook-id": row.event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signatures),
        }


def body_of(row: WebhookDelivery) -> bytes:
    """What is sent: the same bytes at every try."""
    payload = {"type": row.type, "timestamp": row.created_at.isoformat(), "data": row.data}
    return json.dumps(payload, separators=(",", ":")).encode()


def rules_of(settings: Settings) -> Rules:
    hooks = settings.webhooks
    return Rules(hooks.allow_http, hooks.ports, hooks.allow_networks, settings.limits.s3_buckets)


def _valid_secrets(webhook: Webhook, at: datetime) -> list[str]:
    """Sealed; the former one too while a rotation overlaps."""
    until = webhook.former_secret_until
    if webhook.former_secret is None or until is None or until <= at:
        return [webhook.secret]
    return [webhook.secret, webhook.former_secret]


def _redirected(answer: Answered | None) -> str | None:
    if answer is None or not 300 <= answer.status_code < 400:
        return None
    return "it redirects, which is not followed; give the webhook its final url"
