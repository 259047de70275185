"""Who may ask for what: decided on the path alone, before routing, so an unknown path is no leak.

What is not public wants a key; what is not under `/v1` wants the role `admin`. A path that a router
would read differently than this file (a doubled slash, say) falls on the strict side.
"""

from __future__ import annotations

from tidegate.protocol.resources import KeyRole
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.errors import Forbidden

PUBLIC = frozenset({"/healthz", "/readyz", "/docs"})
PUBLIC_PREFIX = "/docs/"
DATA_PLANE = "/v1/"


def is_public(path: str) -> bool:
    """Whether anybody may ask."""
    return path in PUBLIC or path.startswith(PUBLIC_PREFIX)


def check_role(principal: Principal, path: str) -> None:
    """Raise Forbidden when the key's role does not reach this path."""
    if principal.role is not KeyRole.ADMIN and not path.startswith(DATA_PLANE):
        raise Forbidden(
            f"the API key {principal.name!r} has the role '{principal.role}', which reaches only "
            "/v1; use a key with the role 'admin'"
        )


def is_charged(method: str, path: str) -> bool:
    """Whether a request counts against its key's quota: asking for work does, looking does not."""
    return method == "POST" and path.startswith(DATA_PLANE) and not path.endswith("/cancel")
