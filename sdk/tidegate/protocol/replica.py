"""The contract between a control plane and a replica process.

A provisioner writes a `ReplicaConfig` file and starts `python -m tidegate_runtime.server --config
FILE`; the replica writes `ReplicaStatus` to `status_path` whenever its state changes, and answers
`GET /readyz` with `ReplicaReady` once it serves.

Every route but `/healthz` and `/readyz` wants `Authorization: Bearer <token>`, the token given in
the environment variable `TIDEGATE_REPLICA_TOKEN` (never in a file or on the command line), so a
stray process on the same port can neither be used nor impersonated. Only a replica started alone
(`python -m tidegate_runtime.server --artifact DIR`) may go without, on loopback.

Exit status: 0 drained, 1 crashed, 3 refused (the configuration or the model is at fault, and
starting again cannot help).
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tidegate.spec import SpeculationSpec

TOKEN_VARIABLE = "TIDEGATE_REPLICA_TOKEN"
PROJECT_HEADER = "X-Tidegate-Project"
"""Whose request it is: shares of the engine and cached prefixes are per project."""
PRIORITY_HEADER = "X-Tidegate-Priority"
MAX_BODY_BYTES = 8 * 1024 * 1024
"""Of one request to a replica."""
EXIT_DRAINED = 0
EXIT_CRASHED = 1
EXIT_REFUSED = 3


REQUEST_HEADER = "X-Request-Id"
"""The request's id, which every log line about it carries."""


class Telemetry(BaseModel):
    """How a process of the platform tells what it does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    log_format: Literal["json", "text"] = Field(
        default="json", description="one object a line for machines, or a line for people"
    )
    otlp_endpoint: str | None = Field(
        default=None, description="where spans go by OTLP over HTTP; nowhere when null"
    )


class Priority(IntEnum):
    """Who waits for a request's answer; the smaller goes first in a replica."""

    SYNC = 0
    ASYNC = 1
    BATCH = 2


class ReplicaConfig(BaseModel):
    """All that a replica is told: what to serve, where to listen, how much it may use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replica_id: str
    model_name: str = Field(description="the name that requests use in `model`")
    source: str = Field(
        description="a directory, a .gguf file, s3://bucket/prefix, hf://org/name, or an artifact"
    )
    source_digest: str | None = Field(
        default=None, description="that of the plan's model; another one is refused"
    )
    task: Literal["generate", "embed"] = "generate"
    revision: str | None = Field(default=None, description="a hub commit, for hf:// sources")
    host: str = "127.0.0.1"
    port: int = Field(default=0, description="0 lets the kernel choose a free one")
    status_path: str | None = Field(description="no file is written when null")
    status_bell: str | None = Field(
        default=None,
        description="an abstract Unix datagram socket that is told when the file has changed",
    )
    cache_dir: str = Field(description="where sources and artifacts are kept, shared by replicas")
    cache_limit_bytes: int = Field(
        default=64 * 1024**3,
        ge=0,
        description="artifacts beyond this are removed, the longest unused first; not those in use",
    )
    precision: Literal["auto", "fp32", "bf16", "int8", "int4"] = "auto"
    kv: Literal["fp32", "bf16", "int8", "fp8"] | None = Field(
        default=None,
        description="of keys and values; as precise as the weights, but int8 beside int4, if null",
    )
    speculation: SpeculationSpec | None = Field(
        default=None, description="guess next tokens; the output is the same"
    )
    context_tokens: int | None = Field(default=None, description="the model's own when null")
    kv_cache_bytes: int | None = Field(default=None, description="sized from free memory when null")
    max_sequences: int = Field(default=16, ge=1, description="sequences decoded in one batch")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="cpu", description="auto takes a GPU if there is one"
    )
    threads: int | None = Field(default=None, ge=1, description="every core when null")
    drain_s: float = Field(default=120.0, ge=0)
    telemetry: Telemetry = Telemetry()
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
    kv_used: float = Field(default=0.0, description="share of the KV cache's blocks in use")
    waiting: int = Field(default=0, description="sequences that wait for room in a batch")
    message: str | None = None
