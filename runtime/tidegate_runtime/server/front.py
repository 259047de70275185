"""How callers come in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Front:
    """What stands before the routes.

    Without a token they serve this machine's loopback only. `sagemaker` adds `/ping` and
    `/invocations`, which want no token (docs/decisions/105).
    """

    token: str | None = None
    sagemaker: bool = False
