"""Webhooks: declare, look at what was sent, send it again."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from urllib.parse import quote

from tidegate.flow.pages import pages, read
from tidegate.flow.steps import Emitting, Flow, Request, ask
from tidegate.protocol.webhooks import (
    DeliveryState,
    DeliveryView,
    ReplayView,
    WebhookCreated,
    WebhookEvent,
    WebhookView,
)

ROOT = "/api/v1/webhooks"
Events = Iterable[WebhookEvent | str]


def create(url: str, events: Events, description: str) -> Flow[WebhookCreated]:
    body = {"url": url, "events": _names(events), "description": description}
    reply = yield from ask(Request("POST", ROOT, json=body))
    return read(reply, WebhookCreated)


def get(webhook_id: str) -> Flow[WebhookView]:
    reply = yield from ask(Request("GET", _path(webhook_id)))
    return read(reply, WebhookView)


def listing() -> Emitting[WebhookView]:
    return pages(Request("GET", ROOT), WebhookView, lambda view: view)


def change(
    webhook_id: str,
    *,
    url: str | None,
    events: Events | None,
    enabled: bool | None,
    description: str | None,
) -> Flow[WebhookView]:
    """What is None stays as it is."""
    wanted: dict[str, Any] = {
        "url": url,
        "events": None if events is None else _names(events),
        "enabled": enabled,
        "description": description,
    }
    body = {name: value for name, value in wanted.items() if value is not None}
    reply = yield from ask(Request("PATCH", _path(webhook_id), json=body))
    return read(reply, WebhookView)


def delete(webhook_id: str) -> Flow[WebhookView]:
    reply = yield from ask(Request("DELETE", _path(webhook_id)))
    return read(reply, WebhookView)


def rotate(webhook_id: str, overlap_s: float) -> Flow[WebhookCreated]:
    body = {"overlap_s": overlap_s}
    reply = yield from ask(Request("POST", _path(webhook_id, "rotate-secret"), json=body))
    return read(reply, WebhookCreated)


def test(webhook_id: str) -> Flow[DeliveryView]:
    reply = yield from ask(Request("POST", _path(webhook_id, "test")))
    return read(reply, DeliveryView)


def deliveries(webhook_id: str, status: DeliveryState | str | None) -> Emitting[DeliveryView]:
    query = {"status": str(status)} if status else {}
    request = Request("GET", _path(webhook_id, "deliveries"), query=query)
    return pages(request, DeliveryView, lambda view: view)


def delivery(webhook_id: str, delivery_id: str) -> Flow[DeliveryView]:
    reply = yield from ask(Request("GET", _path(webhook_id, "deliveries", delivery_id)))
    return read(reply, DeliveryView)


def replay(webhook_id: str, delivery_id: str) -> Flow[DeliveryView]:
    path = _path(webhook_id, "deliveries", delivery_id, "replay")
    reply = yield from ask(Request("POST", path))
    return read(reply, DeliveryView)


def replay_range(
    webhook_id: str, since: datetime, until: datetime | None, *, delivered: bool
) -> Flow[ReplayView]:
    body: dict[str, Any] = {"since": since.isoformat(), "delivered": delivered}
    if until is not None:
        body["until"] = until.isoformat()
    reply = yield from ask(Request("POST", _path(webhook_id, "replay"), json=body))
    return read(reply, ReplayView)


def _names(events: Events) -> list[str]:
    return [str(event) for event in events]


def _path(*parts: str) -> str:
    return "/".join([ROOT, *(quote(part, safe="") for part in parts)])
