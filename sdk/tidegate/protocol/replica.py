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

LoRA adapters serve the model under further names, `model:adapter`, in the `model` of any generation
request; `GET /v1/models` lists them with the model as their `parent`. Those of `adapters` are
checked at the start. While the replica is ready:

- `GET /adapters` answers with `AdapterList`.
- `POST /adapters` with `AdapterRequest` loads one and answers with `AdapterInfo`. The same files
  again change nothing; other files under a known name replace it for requests that come later, and
  those under way end with the weights that they began with. 400 (`adapter_refused`) says what is
  wrong with the adapter; 503 (`adapter_unavailable`, `adapters_busy`) may succeed later.
- `DELETE /adapters/{name}` forgets one: 204, or 404 (`adapter_not_found`) when it is not known.

At most `max_adapters` are in memory. The longest unused makes room, and is read again when a
request asks for it. What was added or deleted is forgotten when the process ends.

`POST /profile` with `ProfileRequest` records where the engine's steps go and answers with
`EngineProfile`; 409 (`profile_running`) while another one does.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tidegate.spec import KvSpillSpec, SpeculationSpec
from tidegate.spec.names import DeploymentName

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


class DraftConfig(BaseModel):
    """What a plan says of the model that `speculation.draft_model` names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source_digest: str | None = Field(default=None, description="another one is refused")
    revision: str | None = Field(default=None, description="a hub commit, for hf:// sources")
    precision: Literal["fp32", "bf16", "int8", "int4"]
    kv_cache_bytes: int = Field(ge=1)


class HeadsConfig(BaseModel):
    """What a plan says of the heads that `speculation.heads` names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source_digest: str = Field(description="another one is refused")
    revision: str | None = Field(default=None, description="a hub commit, for hf:// sources")


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
    task: Literal["generate", "embed", "rerank"] = "generate"
    pooling: Literal["mean", "cls", "last"] | None = Field(
        default=None, description="of task embed; what the model's files say when null"
    )
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
    draft: DraftConfig | None = Field(
        default=None,
        description="null takes the draft model as it is, in its own precision, with a KV cache "
        "sized from free memory",
    )
    heads: HeadsConfig | None = Field(default=None, description="null takes heads as they are")
    adapters: dict[DeploymentName, str] = Field(
        default={}, description="LoRA adapters, name → source: a directory, s3:// or hf://"
    )
    max_adapters: int = Field(
        default=8, ge=1, description="adapters in memory at once; the longest unused makes room"
    )
    tool_parser: Literal["hermes", "llama3", "mistral"] | None = Field(
        default=None, description="how calls of tools are written; by the template when null"
    )
    context_tokens: int | None = Field(default=None, description="the model's own when null")
    offload_bytes: int | None = Field(
        default=None,
        ge=1,
        description="what weights may take of the device's memory; of larger ones some layers are "
        "brought anew at each step, to a GPU from the host, to a processor from the disk",
    )
    kv_cache_bytes: int | None = Field(default=None, description="sized from free memory when null")
    kv_spill: KvSpillSpec | None = Field(
        default=None, description="prefixes that leave the KV cache are forgotten when null"
    )
    max_sequences: int = Field(default=16, ge=1, description="sequences decoded in one batch")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="cpu", description="auto takes a GPU if there is one"
    )
    tensor_parallel: int = Field(
        default=1,
        ge=1,
        le=16,
        description="processes that the model is divided over, on a GPU each where device has them",
    )
    threads: int | None = Field(
        default=None, ge=1, description="of all of them together; every core when null"
    )
    drain_s: float = Field(default=120.0, ge=0)
    telemetry: Telemetry = Telemetry()
    parent_pid: int | None = Field(
        default=None, description="exit at once when this process is no longer the parent"
    )

    @model_validator(mode="after")
    def _parts_are_of_a_whole_generator(self) -> ReplicaConfig:
        if self.task != "generate" and (self.tensor_parallel > 1 or self.offload_bytes is not None):
            raise ValueError(
                f"tensor_parallel, offload_bytes: a model for {self.task} is run as a whole; "
                "remove them"
            )
        if self.tensor_parallel > 1 and self.offload_bytes is not None:
            raise ValueError(
                f"offload_bytes: a model divided by tensor_parallel {self.tensor_parallel} streams "
                "no layers; remove one of the two"
            )
        return self


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


class AdapterRequest(BaseModel):
    """The body of `POST /adapters`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: DeploymentName
    source: str = Field(min_length=1, max_length=2048)


class AdapterInfo(BaseModel):
    """One adapter of a replica."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    source: str
    digest: str = Field(description="of its configuration and weights")
    rank: int = Field(description="the largest of its updates")
    targets: list[str] = Field(description="the linears that it changes, as q_proj")
    weights_bytes: int = Field(description="what its weights take in memory")
    loaded: bool = Field(description="in memory; else it is read when a request asks for it")
    in_use: int = Field(description="requests that hold it")


class AdapterList(BaseModel):
    """The body of `GET /adapters`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    adapters: list[AdapterInfo]
    max_adapters: int
