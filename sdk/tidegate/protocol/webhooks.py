"""Webhooks: what is declared, what is sent, and what became of it.

Source of the payload and its headers: the Standard Webhooks specification
(https://www.standardwebhooks.com).
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, model_validator

from tidegate.protocol.resources import Request, Resource

MAX_URL_CHARS = 2048
DAY_S = 86_400.0


class WebhookEvent(StrEnum):
    """What can be subscribed to."""

    INVOCATION_SUCCEEDED = "invocation.succeeded"
    INVOCATION_FAILED = "invocation.failed"
    INVOCATION_DEAD = "invocation.dead"
    INVOCATION_CANCELED = "invocation.canceled"
    INVOCATION_EXPIRED = "invocation.expired"
    BATCH_COMPLETED = "batch.completed"
    BATCH_FAILED = "batch.failed"
    BATCH_EXPIRED = "batch.expired"
    BATCH_CANCELLED = "batch.cancelled"
    DEPLOYMENT_READY = "deployment.ready"
    DEPLOYMENT_DEGRADED = "deployment.degraded"
    DEPLOYMENT_FAILED = "deployment.failed"
    ROLLOUT_ROLLED_BACK = "rollout.rolled_back"
    WEBHOOK_DISABLED = "webhook.disabled"
    """Another webhook of the project was given up."""


TEST_EVENT = "webhook.test"
"""The type of what `…/test` sends; nobody subscribes to it."""

Url = Annotated[str, Field(min_length=1, max_length=MAX_URL_CHARS)]
Events = Annotated[list[WebhookEvent], Field(max_length=len(WebhookEvent))]


class WebhookPayload(Resource):
    """The body of every delivery. It names what happened; prompts and results are never in it."""

    type: str
    timestamp: datetime = Field(description="when it happened")
    data: dict[str, Any] = Field(description="`id` and the facts of what it happened to")


class WebhookRequest(Request):
    """A new webhook."""

    url: Url = Field(description="`https://…`, or `s3://bucket/prefix/` for one object per event")
    events: Events = Field(description="none: only what names this webhook in its request")
    description: Annotated[str, Field(max_length=256)] = ""


class WebhookChange(Request):
    """What is absent stays as it is."""

    url: Url | None = None
    events: Events | None = None
    enabled: bool | None = None
    description: Annotated[str, Field(max_length=256)] | None = None


class RotateRequest(Request):
    """A new secret; both sign for a while, so that the receiver can change in between."""

    overlap_s: float = Field(default=DAY_S, ge=0, le=7 * DAY_S, allow_inf_nan=False)


class WebhookView(Resource):
    id: str
    url: str
    events: list[str]
    description: str = ""
    enabled: bool
    disabled_reason: str | None = Field(default=None, description="when the platform gave it up")
    failing_since: datetime | None = Field(
        default=None, description="the first failed try since one succeeded"
    )
    former_secret_until: datetime | None = Field(
        default=None, description="after a rotation: until then the former secret signs too"
    )
    created_at: datetime
    updated_at: datetime


class WebhookCreated(WebhookView):
    secret: str = Field(description="`whsec_…`, shown this once")


class DeliveryState(StrEnum):
    PENDING = "pending"
    """Due now, or once its back-off ends."""
    SENDING = "sending"
    DELIVERED = "delivered"
    DEAD = "dead"
    """Given up; it can be replayed."""

    @property
    def is_final(self) -> bool:
        """Whether nothing more is tried, unless it is replayed."""
        return self in (DeliveryState.DELIVERED, DeliveryState.DEAD)


class TryView(Resource):
    """One attempt to hand an event over."""

    at: datetime
    status_code: int | None = Field(default=None, description="null when there was no answer")
    latency_ms: float
    answer: str | None = Field(default=None, description="the first bytes of the answer")
    error: str | None = None


class DeliveryView(Resource):
    id: str
    webhook: str
    event: str = Field(description="the `webhook-id` header: the same for all tries")
    type: str
    status: DeliveryState
    data: dict[str, Any]
    created_at: datetime
    next_try_at: datetime | None = None
    finished_at: datetime | None = None
    tries: list[TryView] = Field(default=[], description="the last ones, oldest first")


class ReplayRequest(Request):
    """Send again what happened in a range of time: what was given up, or all of it."""

    since: datetime
    until: datetime | None = Field(default=None, description="now when absent")
    delivered: bool = Field(default=False, description="also what was delivered before")

    @model_validator(mode="after")
    def _is_a_range(self) -> ReplayRequest:
        for name in ("since", "until"):
            moment: datetime | None = getattr(self, name)
            if moment is not None:
                _check_moment(name, moment)
        if self.until is not None and self.until <= self.since:
            raise ValueError("until: must be later than since")
        return self


def _check_moment(name: str, moment: datetime) -> None:
    if moment.tzinfo is None:
        raise ValueError(f"{name}: {moment.isoformat()} has no time zone; add one, as Z")
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{name}: {moment.isoformat()} is out of range") from None


class ReplayView(Resource):
    replayed: int
