"""Rows of the hardware catalogue: offers that were asked for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlmodel import Session, select

from tidegate.offers import Offer
from tidegate_controlplane.store.tables import OfferRow


def recorded(session: Session) -> list[Offer]:
    """All of them."""
    return [Offer.model_validate(row.content) for row in session.exec(select(OfferRow))]


def record(session: Session, offers: Iterable[Offer], now: datetime) -> None:
    """Put each in the place of the one before it."""
    for offer in offers:
        content = offer.model_dump(mode="json")
        session.merge(OfferRow(id=offer.id, content=content, recorded_at=now))
