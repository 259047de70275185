"""API keys as rows; the secret itself is never stored."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session, col, func, select

from tidegate.protocol.resources import KeyRole
from tidegate_controlplane.store.tables import DEFAULT_PROJECT, ApiKey, Project


def find_key(session: Session, key_id: str) -> ApiKey | None:
    return session.get(ApiKey, key_id)


def page_of_keys(session: Session, project_id: str, after: str | None, limit: int) -> list[ApiKey]:
    """At most `limit` keys whose id follows `after`, oldest first."""
    query = select(ApiKey).where(ApiKey.project_id == project_id)
    if after is not None:
        query = query.where(col(ApiKey.id) > after)
    return list(session.exec(query.order_by(col(ApiKey.id)).limit(limit)))


def has_any_key(session: Session) -> bool:
    return session.exec(select(ApiKey.id).limit(1)).first() is not None


def living_admins(session: Session, project_id: str) -> int:
    """How many keys can still administer the project."""
    query = select(func.count()).where(
        col(ApiKey.project_id) == project_id,
        col(ApiKey.role) == KeyRole.ADMIN.value,
        col(ApiKey.revoked_at).is_(None),
    )
    return session.exec(query).one()


def ensure_default_project(session: Session, now: datetime) -> None:
    if session.get(Project, DEFAULT_PROJECT) is None:
        session.add(Project(id=DEFAULT_PROJECT, name="default", created_at=now))
        session.flush()
