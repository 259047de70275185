"""A deployment: one model, one mode of serving, and the bounds it lives within."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ByteSize, Field, StringConstraints, model_validator

from tidegate.spec.declaration import Declaration
from tidegate.spec.rollout import RolloutSpec
from tidegate.spec.source import parse_source
from tidegate.spec.timing import Cron, IdleTimeout

NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
LABEL_KEY_PATTERN = r"^[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,61}[a-zA-Z0-9])?$"

DeploymentName = Annotated[
    str,
    StringConstraints(pattern=NAME_PATTERN),
    Field(description="lower-case letters, digits and hyphens, at most 63, starting with a letter"),
]
LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, StringConstraints(max_length=256)]


class Mode(StrEnum):
    """How a deployment is served."""

    REALTIME = "realtime"
    """Always on: at least one replica is ready."""
    SERVERLESS = "serverless"
    """From zero on demand: a request wakes it and is held until it is answered."""
    ASYNC = "async"
    """A durable queue: 202 now, the result later."""
    BATCH = "batch"
    """A job over a file: one answer per line."""


class Task(StrEnum):
    """What the model does."""

    GENERATE = "generate"
    EMBED = "embed"


class Precision(StrEnum):
    """The number format of the weights while serving."""

    AUTO = "auto"
    """The plan chooses: int4 for a GGUF file of 4 bits, else int8; bf16 for embeddings."""
    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"
    INT4 = "int4"
    FP8 = "fp8"


class ProvisionerName(StrEnum):
    """Where replicas run."""

    LOCAL = "local"
    RAY = "ray"
    AWS = "aws"


class ModelSpec(Declaration):
    source: Annotated[str, Field(min_length=1, max_length=2048)]
    """A directory, a `.gguf` file, `s3://bucket/prefix`, or `hf://org/name`."""
    revision: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """A commit, tag or branch; only for `hf://` sources."""
    task: Task = Task.GENERATE
    """`generate` for chat and completions, `embed` for embeddings."""

    @model_validator(mode="after")
    def _source_is_readable(self) -> ModelSpec:
        parse_source(self.source, self.revision)
        return self


class SpeculationSpec(Declaration):
    method: Literal["ngram", "draft"]
    """`ngram` looks up the prompt and needs no extra weights; `draft` runs a smaller model."""
    draft_model: str | None = None
    """The source of the draft model; required by, and only for, `draft`."""
    max_tokens: Annotated[int, Field(ge=1, le=15)] = 15
    """Proposed tokens per step, at most; how many pay is found out while serving."""

    @model_validator(mode="after")
    def _draft_has_a_model(self) -> SpeculationSpec:
        if self.method == "draft" and self.draft_model is None:
            raise ValueError("draft_model: method 'draft' needs the source of a draft model")
        if self.method == "ngram" and self.draft_model is not None:
            raise ValueError("draft_model: method 'ngram' uses no draft model; remove it")
        return self


class RuntimeSpec(Declaration):
    precision: Precision = Precision.AUTO
    context_tokens: Annotated[int, Field(ge=16)] | None = None
    """Prompt and output together; the model's own context when absent."""
    kv_cache: Annotated[ByteSize, Field(ge=1024 * 1024)] | None = None
    """Memory for one replica's KV cache, as bytes or text such as `2GiB`; planned when absent."""
    max_sequences: Annotated[int, Field(ge=1, le=1024)] = 16
    """Sequences that one replica decodes in one batch."""
    speculation: SpeculationSpec | None = None
    adapters: dict[DeploymentName, str] = Field(default_factory=dict)
    """LoRA adapters: name → source."""


class GpuSpec(Declaration):
    type: str | None = None
    """For instance `H200`; any when absent."""
    count: Annotated[int, Field(ge=1, le=16)] = 1


class HardwareSpec(Declaration):
    provisioner: ProvisionerName = ProvisionerName.LOCAL
    cpu: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Threads of one replica; every core of the machine when absent."""
    memory: Annotated[ByteSize, Field(ge=64 * 1024 * 1024)] | None = None
    """Bound on the predicted memory of one replica, as bytes or text such as `4GiB`."""
    gpu: GpuSpec | None = None
    """What one replica runs on; on processors when absent. `{}` is any one GPU."""


class ScheduleSpec(Declaration):
    """A minimum of replicas that begins at certain times and holds for a while."""

    cron: Cron
    """When it begins, in five fields: minute, hour, day of month, month, day of week."""
    duration_s: Annotated[float, Field(ge=60, le=7 * 86_400)]
    """How long it holds."""
    min_replicas: Annotated[int, Field(ge=1, le=1000)]
    timezone: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "UTC"
    """Of `cron`: a name such as `Europe/Berlin`."""


class ScalingSpec(Declaration):
    min_replicas: Annotated[int, Field(ge=0, le=1000)] | None = None
    """1 for realtime, 0 for the others, when absent."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] | None = None
    """`max(1, min_replicas)` when absent."""
    target_in_flight: Annotated[int, Field(ge=1, le=1024)] | None = None
    """In-flight requests on one replica that call for another; learned from what replicas do when
    absent."""
    idle_timeout_s: IdleTimeout | None = None
    """Seconds without work before scaling to zero; 300 when absent (60 for async, 15 for batch).
    `auto` learns it from the pauses seen, the length of a cold start and its price."""
    cold_start_price_s: Annotated[float, Field(ge=0, le=864_000)] | None = None
    """Replica-seconds that are worth spending to avoid one cold start; five cold starts when
    absent."""
    schedule: Annotated[tuple[ScheduleSpec, ...], Field(max_length=32)] = ()
    """Minimums at certain times; of several that hold, the largest counts."""


class SloSpec(Declaration):
    ttft_ms: Annotated[float, Field(gt=0)] | None = None
    """Time to first token, median, in milliseconds: reported against, and used by autoscaling."""
    itl_ms: Annotated[float, Field(gt=0)] | None = None
    """Inter-token latency, median, in milliseconds."""


class DeploymentSpec(Declaration):
    """What is declared: a model and how it should be served."""

    name: DeploymentName
    model: ModelSpec
    """A source, or `{source, revision, task}`."""
    mode: Mode
    runtime: RuntimeSpec = RuntimeSpec()
    hardware: HardwareSpec = HardwareSpec()
    scaling: ScalingSpec = ScalingSpec()
    slo: SloSpec = SloSpec()
    rollout: RolloutSpec = RolloutSpec()
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=64, default_factory=dict)]

    @model_validator(mode="before")
    @classmethod
    def _source_alone_is_a_model(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("model"), str):
            return {**data, "model": {"source": data["model"]}}
        return data

    @model_validator(mode="after")
    def _combination_is_possible(self) -> DeploymentSpec:
        for check in (
            _check_replicas,
            _check_schedule,
            _check_idle,
            _check_precision,
            _check_embedding,
            _check_drift,
        ):
            check(self)
        return self

    def with_replicas(self, minimum: int | None, maximum: int | None) -> DeploymentSpec:
        """The same declaration with other replica bounds; None keeps the present one."""
        patch = {"min_replicas": minimum, "max_replicas": maximum}
        scaling = self.scaling.model_dump() | {k: v for k, v in patch.items() if v is not None}
        return DeploymentSpec.model_validate(self.model_dump() | {"scaling": scaling})


def _check_replicas(spec: DeploymentSpec) -> None:
    low, high = spec.scaling.min_replicas, spec.scaling.max_replicas
    if low is not None and high is not None and low > high:
        raise ValueError(
            f"scaling.min_replicas: {low} is more than scaling.max_replicas ({high}); "
            "lower the first or raise the second"
        )
    if spec.mode is Mode.REALTIME and low == 0:
        raise ValueError(
            "scaling.min_replicas: realtime means always on, so at least 1; "
            "use mode 'serverless' to scale from zero"
        )
    if spec.mode in (Mode.BATCH, Mode.ASYNC) and low is not None and low >= 1:
        raise ValueError(
            f"scaling.min_replicas: {spec.mode.value} runs only while there is work, so it must "
            "be 0; use mode 'realtime' to keep replicas up"
        )


def _check_schedule(spec: DeploymentSpec) -> None:
    if spec.scaling.schedule and spec.mode in (Mode.BATCH, Mode.ASYNC):
        raise ValueError(
            f"scaling.schedule: {spec.mode.value} runs only while there is work; remove it, or use "
            "mode 'serverless'"
        )
    high = spec.scaling.max_replicas or max(1, spec.scaling.min_replicas or 0)
    for index, entry in enumerate(spec.scaling.schedule):
        if entry.min_replicas > high:
            raise ValueError(
                f"scaling.schedule: entry {index} wants {entry.min_replicas} replicas, more than "
                f"scaling.max_replicas ({high}); lower the first or raise the second"
            )


def _check_idle(spec: DeploymentSpec) -> None:
    if spec.mode is Mode.REALTIME and spec.scaling.idle_timeout_s == 0:
        raise ValueError(
            "scaling.idle_timeout_s: 0 would make a realtime deployment flap with every request; "
            "leave it out, or use mode 'serverless'"
        )


def _check_precision(spec: DeploymentSpec) -> None:
    if spec.runtime.precision is Precision.FP8 and spec.hardware.gpu is None:
        raise ValueError(
            "runtime.precision: fp8 needs a GPU that computes it; "
            "add hardware.gpu, or use bf16 or int8"
        )


def _check_embedding(spec: DeploymentSpec) -> None:
    if spec.model.task is not Task.EMBED:
        return
    if spec.runtime.speculation is not None:
        raise ValueError(
            "runtime.speculation: an embedding model generates nothing to speculate on; remove it"
        )
    if spec.runtime.adapters:
        raise ValueError("runtime.adapters: adapters need model.task 'generate'; remove them")


def _check_drift(spec: DeploymentSpec) -> None:
    rollback_on = spec.rollout.rollback_on
    if spec.model.task is Task.EMBED and rollback_on and rollback_on.drift is not None:
        raise ValueError(
            "rollout.rollback_on.drift: an embedding model writes no text to compare; remove it"
        )
