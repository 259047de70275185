"""Webhooks, and the outbox of what they are told."""

from datetime import datetime
from typing import Any

from sqlalchemy import Column, ForeignKey, Index
from sqlmodel import Field, SQLModel

from tidegate_controlplane.store.tables.columns import index_where, json_value, moment


class Webhook(SQLModel, table=True):
    """Where a project wants to be told, and of what."""

    __table_args__ = (
        index_where("ix_webhook_living", "deleted_at IS NULL", "project_id", "enabled"),
    )

    id: str = Field(primary_key=True)
    project_id: str = Field(sa_column=Column(ForeignKey("project.id"), nullable=False))
    url: str
    events: list[str] = json_value()
    description: str = ""
    enabled: bool = True
    disabled_reason: str | None = None
    secret: str = Field(description="sealed; `webhooks.secret` opens it")
    former_secret: str | None = None
    former_secret_until: datetime | None = moment(nullable=True)
    failing_since: datetime | None = moment(nullable=True)
    created_at: datetime = moment()
    updated_at: datetime = moment()
    deleted_at: datetime | None = moment(nullable=True)


class WebhookDelivery(SQLModel, table=True):
    """The outbox: one event for one webhook, written with the change that it tells of."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        index_where(
            "ix_webhook_delivery_due", "finished_at IS NULL", "webhook_id", "status", "due_at"
        ),
        index_where("ix_webhook_delivery_lease", "lease_owner IS NOT NULL", "lease_owner"),
        Index("ix_webhook_delivery_list", "webhook_id", "id"),
        Index("ix_webhook_delivery_finished", "finished_at"),
    )

    id: str = Field(primary_key=True)
    webhook_id: str = Field(sa_column=Column(ForeignKey("webhook.id"), nullable=False))
    event_id: str = Field(description="the same for all tries, and for all webhooks of the event")
    type: str
    data: dict[str, Any] = json_value()
    status: str
    number: int = Field(default=0, description="tries since it was made or replayed")
    tries: list[dict[str, Any]] = json_value()
    lease_owner: str | None = None
    lease_epoch: int = 0
    created_at: datetime = moment()
    due_at: datetime = moment()
    finished_at: datetime | None = moment(nullable=True)
