"""What one control plane process is told, read once at the edge and handed down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tidegate.protocol.replica import Telemetry

Seconds = Annotated[float, Field(ge=0)]


class LimitSettings(BaseModel):
    """Bounds on what a caller may ask; each has an answer that names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sync_body_bytes: int = 8 * 1024 * 1024
    invocation_body_bytes: int = 64 * 1024 * 1024
    inline_body_bytes: int = 128 * 1024
    json_depth: int = 64
    hold_queue: int = 1000
    """Requests held per deployment."""
    project_hold_queue: int = 2000
    """Requests held per project, over all of its deployments."""
    hold_s: Seconds = 300.0
    heartbeat_s: Seconds = 10.0
    """Until a stream without a first byte gets its status, and between SSE comments after it."""
    reader_stall_s: Seconds = 60.0
    """A client that takes no byte of its answer for so long is left."""
    invocation_run_s: Seconds = 900.0
    invocation_run_max_s: Seconds = 3600.0
    result_retention_s: Seconds = 7 * 86_400.0


class WorkSettings(BaseModel):
    """How durable work is claimed and retried."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lease_s: Seconds = 30.0
    heartbeat_s: Seconds = 5.0
    max_attempts: int = 3
    poll_s: Seconds = 0.5
    retry_base_s: Seconds = 1.0
    retry_max_s: Annotated[float, Field(ge=0, le=300)] = 60.0


class ReconcileSettings(BaseModel):
    """How the level-triggered loop paces itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tick_s: Seconds = 1.0
    """Between passes when every replica is as it should be."""
    busy_tick_s: Seconds = 0.1
    """Between passes while a replica starts or drains."""
    health_interval_s: Seconds = 1.0
    health_timeout_s: Seconds = 2.0
    health_failures: int = 3
    """Failed health checks in a row after which a replica is replaced."""
    start_timeout_s: Seconds = 600.0
    backoff_base_s: Seconds = 1.0
    backoff_max_s: Seconds = 60.0


class Settings(BaseModel):
    """All of it; `data_dir` belongs to one control plane at a time."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_dir: Path
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8686
    objects: str | None = None
    """`s3://bucket/prefix` for payloads and results; a directory under `data_dir` when absent."""
    database: str | None = None
    """`postgresql://user@host/name`; a SQLite file under `data_dir` when absent."""
    warm_bytes: Annotated[int, Field(ge=0)] = 1024**3
    """What the zygote may keep in memory of the models used last: tokenizers, no weights."""
    limits: LimitSettings = LimitSettings()
    work: WorkSettings = WorkSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
    telemetry: Telemetry = Telemetry()
    shutdown_s: Seconds = 30.0
    """Seconds that requests in flight may finish after SIGTERM."""

    @property
    def database_path(self) -> Path:
        return self.data_dir / "tidegate.db"

    @property
    def objects_dir(self) -> Path:
        return self.data_dir / "objects"

    @property
    def replicas_dir(self) -> Path:
        return self.data_dir / "replicas"

    @property
    def zygote_log_path(self) -> Path:
        return self.data_dir / "zygote.log"

    @property
    def cache_dir(self) -> Path:
        return self.data_dir / "cache"

    @property
    def connection_path(self) -> Path:
        return self.data_dir / "connection.json"

    @property
    def pid_path(self) -> Path:
        return self.data_dir / "controlplane.pid"

    @property
    def lock_path(self) -> Path:
        return self.data_dir / "lock"

    @property
    def pepper_path(self) -> Path:
        return self.data_dir / "pepper"
