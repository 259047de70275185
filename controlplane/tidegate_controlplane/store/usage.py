"""What was used: one row per key, deployment and hour, added to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Executable, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col

from tidegate_controlplane.store.tables import UsageRecord


@dataclass(frozen=True)
class UsageKey:
    """Whose use, of what, in which hour."""

    project_id: str
    deployment: str
    mode: str
    key_id: str
    """Empty for work that no key is known for."""
    hour: datetime


@dataclass(frozen=True)
class Used:
    """How much."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Used) -> Used:
        return Used(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


def add_usage(session: Session, entries: Iterable[tuple[UsageKey, Used]]) -> None:
    """Add to the rows of these keys, making them where there are none."""
    upsert = _UPSERT[session.get_bind().dialect.name]
    for key, used in entries:
        row = {
            "project_id": key.project_id,
            "deployment": key.deployment,
            "mode": key.mode,
            "key_id": key.key_id,
            "hour": key.hour,
            "requests": used.requests,
            "prompt_tokens": used.prompt_tokens,
            "completion_tokens": used.completion_tokens,
        }
        more = {
            "requests": col(UsageRecord.requests) + used.requests,
            "prompt_tokens": col(UsageRecord.prompt_tokens) + used.prompt_tokens,
            "completion_tokens": col(UsageRecord.completion_tokens) + used.completion_tokens,
        }
        session.execute(upsert(row, more))


_KEY = ("project_id", "deployment", "mode", "key_id", "hour")


def _sqlite(row: dict[str, Any], more: dict[str, Any]) -> Executable:
    statement = sqlite.insert(UsageRecord).values(row)
    return statement.on_conflict_do_update(index_elements=_KEY, set_=more)


def _postgresql(row: dict[str, Any], more: dict[str, Any]) -> Executable:
    statement = postgresql.insert(UsageRecord).values(row)
    return statement.on_conflict_do_update(index_elements=_KEY, set_=more)


_UPSERT = {"sqlite": _sqlite, "postgresql": _postgresql}
"""`ON CONFLICT` is no standard: each dialect has its own."""


def usage_by_deployment(session: Session, project_id: str) -> dict[tuple[str, str], Used]:
    """All that a project used, by (deployment, mode)."""
    query = (
        select(
            col(UsageRecord.deployment),
            col(UsageRecord.mode),
            func.sum(col(UsageRecord.requests)),
            func.sum(col(UsageRecord.prompt_tokens)),
            func.sum(col(UsageRecord.completion_tokens)),
        )
        .where(col(UsageRecord.project_id) == project_id)
        .group_by(col(UsageRecord.deployment), col(UsageRecord.mode))
    )
    return {
        (deployment, mode): Used(requests, prompt_tokens, completion_tokens)
        for deployment, mode, requests, prompt_tokens, completion_tokens in session.execute(query)
    }
