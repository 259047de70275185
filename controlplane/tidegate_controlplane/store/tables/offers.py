"""Offers of machines that were asked for."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel

from tidegate_controlplane.store.tables.columns import json_value, moment


class OfferRow(SQLModel, table=True):
    """An offer of the hardware catalogue that was asked for; others came with this version."""

    __tablename__ = "offer"

    id: str = Field(primary_key=True)
    content: dict[str, Any] = json_value()
    """An `Offer`."""
    recorded_at: datetime = moment()
