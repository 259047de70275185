"""What the shell knows of a request, for those who answer it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from litestar.connection import ASGIConnection

from tidegate_controlplane.access.principal import Principal

Scope = MutableMapping[str, Any]
Connection = ASGIConnection[Any, Any, Any, Any]


def remember(scope: Scope, *, request_id: str) -> None:
    """Note the request's id, before anything else looks at it."""
    scope.setdefault("state", {})["request_id"] = request_id


def remember_principal(scope: Scope, principal: Principal) -> None:
    """Note who is calling, once authenticated."""
    scope["state"]["principal"] = principal


def remember_deployment(state: MutableMapping[str, Any], name: str) -> None:
    """Note which deployment is asked, for the line in the log."""
    state["deployment"] = name


def request_id_of(connection: Connection) -> str:
    """The id that the answer carries as `x-request-id`."""
    found: str = connection.scope["state"]["request_id"]
    return found


def principal_of(connection: Connection) -> Principal:
    """The caller; every route but the public ones has one."""
    found: Principal = connection.scope["state"]["principal"]
    return found
