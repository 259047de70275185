"""The contract between a control plane and a replica process.

A provisioner writes a `ReplicaConfig` file and starts `python -m tidegate_runtime.server --config
FILE`; the replica writes `ReplicaStatus` to `status_path` whenever its state changes, and answers
`GET /readyz` with `ReplicaReady` once it serves.

Every route but `/healthz` and `/readyz` wants `Authorization: Bearer <token>`, the token given in
the environment variable `TIDEGATE_REPLICA_TOKEN` (never in a file or on the command line), so a
stray process on the same port can neither be used nor impersonated.

Exit status: 0 drained, 1 crashed, 3 refused (the configuration or the model is at fault, and
starting again cannot help).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

TOKEN_VARIABLE = "TIDEGATE_REPLICA_TOKEN"
EXIT_DRAINED = 0
EXIT_CRASHED = 1
EXIT_REFUSED = 3


class ReplicaConfig(BaseModel):
    """All that a replica is told: what to serve, where to listen, how much it may use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replica_id: str
    model_name: str = Field(description="the name that requests use in `model`")
    source: str = Field(description="a directory, a .gguf file, s3://bucket/prefix, hf://org/name")
    task: Literal["generate", "embed"] = "generate"
    revision: str | None = Field(default=None, description="a hub commit, for hf:// sources")
    host: str = "127.0.0.1"
    port: int = Field(default=0, description="0 lets the kernel choose a free one")
    status_path: str
    cache_dir: str = Field(description="where s3:// and hf:// sources are kept, shared by replicas")
    precision: Literal["bf16", "fp32"] = "bf16"
    context_tokens: int | None = Field(default=None, description="the model's own when null")
    kv_cache_bytes: int | None = Field(default=None, description="sized from free memory when null")
    max_sequences: int = Field(default=16, ge=1, description="sequences decoded in one batch")
    threads: int | None = Field(default=None, ge=1, description="every core when null")
    drain_s: float = Field(default=120.0, ge=0)
    parent_pid: int | None = Field(
        default=None, description="exit at once when this process is no longer the parent"
    )


class ReplicaState(StrEnum):
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


class ReplicaStatus(BaseModel):
    """The status file: replaced atomically, so a reader sees a whole one or none."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    replica_id: str
    pid: int
    port: int | None
    state: ReplicaState
    reason: str | None = Field(default=None, description="CamelCase word for machines")
    message: str | None = Field(default=None, description="a sentence with value and remedy")


class ReplicaReady(BaseModel):
    """The body of `GET /readyz`, with status 200 when `state` is ready and 503 otherwise."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    replica_id: str
    state: ReplicaState
    context_tokens: int = 0
    max_sequences: int = 0
    kv_cache_tokens: int = 0
    in_flight: int = 0
    message: str | None = None
