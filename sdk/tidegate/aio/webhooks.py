"""`client.webhooks`: who is told of what happens."""

from __future__ import annotations

from datetime import datetime

from tidegate.aio.pump import AsyncPump
from tidegate.aio.stream import AsyncStream
from tidegate.protocol.webhooks import (
    DAY_S,
    DeliveryState,
    DeliveryView,
    WebhookCreated,
    WebhookView,
)
from tidegate.routes import webhooks
from tidegate.routes.webhooks import Events


class AsyncWebhooks:
    """`client.webhooks`; `tidegate.webhooks.verify` is for those who receive them."""

    def __init__(self, pump: AsyncPump) -> None:
        self._pump = pump

    async def create(self, url: str, events: Events, description: str = "") -> WebhookCreated:
        """Declare one; its secret is in `secret`, this once.

        `url` is `https://…` or `s3://bucket/prefix/`. Without events, only what names this webhook
        in its request is told to it. Raises Unprocessable when the url may not be used.
        """
        return await self._pump.run(webhooks.create(url, events, description))

    async def get(self, webhook_id: str) -> WebhookView:
        """Raises NotFound."""
        return await self._pump.run(webhooks.get(webhook_id))

    def list(self) -> AsyncStream[WebhookView]:
        return self._pump.stream(webhooks.listing())

    async def change(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        events: Events | None = None,
        enabled: bool | None = None,
        description: str | None = None,
    ) -> WebhookView:
        """What is None stays; enabling begins anew with one that was given up."""
        flow = webhooks.change(
            webhook_id, url=url, events=events, enabled=enabled, description=description
        )
        return await self._pump.run(flow)

    async def delete(self, webhook_id: str) -> WebhookView:
        """Nothing more is sent to it."""
        return await self._pump.run(webhooks.delete(webhook_id))

    async def rotate(self, webhook_id: str, overlap_s: float = DAY_S) -> WebhookCreated:
        """A new secret, this once; the former one signs too for `overlap_s` seconds."""
        return await self._pump.run(webhooks.rotate(webhook_id, overlap_s))

    async def test(self, webhook_id: str) -> DeliveryView:
        """Send it an event of type `webhook.test`."""
        return await self._pump.run(webhooks.test(webhook_id))

    def deliveries(
        self, webhook_id: str, status: DeliveryState | str | None = None
    ) -> AsyncStream[DeliveryView]:
        """What was sent or will be, newest first, with every try."""
        return self._pump.stream(webhooks.deliveries(webhook_id, status))

    async def delivery(self, webhook_id: str, delivery_id: str) -> DeliveryView:
        """Raises NotFound."""
        return await self._pump.run(webhooks.delivery(webhook_id, delivery_id))

    async def replay(self, webhook_id: str, delivery_id: str) -> DeliveryView:
        """Send it again. Raises Conflict when it has not ended."""
        return await self._pump.run(webhooks.replay(webhook_id, delivery_id))

    async def replay_range(
        self,
        webhook_id: str,
        since: datetime,
        until: datetime | None = None,
        *,
        delivered: bool = False,
    ) -> int:
        """Send again what was given up from `since` on, or all; how many that are."""
        flow = webhooks.replay_range(webhook_id, since, until, delivered=delivered)
        return (await self._pump.run(flow)).replayed
