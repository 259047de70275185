"""Rows as they are shown."""

from __future__ import annotations

from tidegate.protocol.webhooks import (
    DeliveryState,
    DeliveryView,
    TryView,
    WebhookCreated,
    WebhookView,
)
from tidegate_controlplane.store.tables import Webhook, WebhookDelivery


def webhook_view(row: Webhook) -> WebhookView:
    return WebhookView(
        id=row.id,
        url=row.url,
        events=row.events,
        description=row.description,
        enabled=row.enabled,
        disabled_reason=row.disabled_reason,
        failing_since=row.failing_since,
        former_secret_until=row.former_secret_until,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def created_view(row: Webhook, secret: str) -> WebhookCreated:
    return WebhookCreated(**webhook_view(row).model_dump(), secret=secret)


def delivery_view(row: WebhookDelivery) -> DeliveryView:
    status = DeliveryState(row.status)
    return DeliveryView(
        id=row.id,
        webhook=row.webhook_id,
        event=row.event_id,
        type=row.type,
        status=status,
        data=row.data,
        created_at=row.created_at,
        next_try_at=row.due_at if status is DeliveryState.PENDING else None,
        finished_at=row.finished_at,
        tries=[TryView.model_validate(each) for each in row.tries],
    )
