"""The replicas of a deployment, and their logs."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from tidegate.protocol.resources.base import Resource


class ReplicaPhase(StrEnum):
    REQUESTED = "requested"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    TERMINATED = "terminated"
    FAILED = "failed"


class ReplicaView(Resource):
    id: str
    revision: str
    phase: ReplicaPhase
    pid: int | None = None
    port: int | None = None
    where: str | None = Field(
        default=None, description="such as `node 10.0.0.3`; null on the control plane's machine"
    )
    reason: str | None = None
    message: str | None = None
    in_flight: int = 0
    cold_start_s: float | None = Field(default=None, description="requested to ready, seconds")
    created_at: datetime
    updated_at: datetime


class LogLine(Resource):
    replica: str
    offset: int = Field(description="byte offset after this line in the replica's log")
    text: str


class LogPage(Resource):
    """Log lines; ask again with `cursor=<cursor>` for those written since."""

    data: list[LogLine]
    cursor: str
