"""A deployment: one model, one mode of serving, and the bounds it lives within."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ByteSize, Field, StringConstraints, model_validator

from tidegate.spec.declaration import Declaration
from tidegate.spec.names import DeploymentName, LabelKey, LabelValue
from tidegate.spec.rollout import RolloutSpec
from tidegate.spec.runtime import Precision, RuntimeSpec
from tidegate.spec.source import parse_source
from tidegate.spec.timing import Cron, IdleTimeout


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
    RERANK = "rerank"

    @property
    def encodes(self) -> bool:
        """Whether it reads a text as a whole and generates none."""
        return self is not Task.GENERATE


class Pooling(StrEnum):
    """How the vectors of a text's tokens become one."""

    MEAN = "mean"
    CLS = "cls"
    """The first token's."""
    LAST = "last"
    """The last token's, as decoders trained for embedding have it."""


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
    """`generate` for chat and completions, `embed` for embeddings, `rerank` for a cross-encoder,
    which scores pairs of texts."""
    pooling: Pooling | None = None
    """For `embed` only; what the model's files say when absent, else the mean."""

    @model_validator(mode="after")
    def _pooling_embeds(self) -> ModelSpec:
        if self.pooling is not None and self.task is not Task.EMBED:
            raise ValueError("pooling: only model.task 'embed' pools; remove it")
        return self

    @model_validator(mode="after")
    def _source_is_readable(self) -> ModelSpec:
        parse_source(self.source, self.revision)
        return self


class GpuSpec(Declaration):
    type: str | None = None
    """For instance `H200`; any when absent."""
    count: Annotated[int, Field(ge=1, le=16)] = 1
    """Of one replica, whose model is divided over all of them."""


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
            _check_encoder,
            _check_tensor_parallel,
            _check_offload,
            _check_drift,
        ):
            check(self)
        return self

    def with_adapter(self, name: str, source: str | None) -> DeploymentSpec:
        """The same declaration with an adapter, or without it when there is no source.

        Raises ValidationError as any declaration does.
        """
        adapters = {key: value for key, value in self.runtime.adapters.items() if key != name}
        if source is not None:
            adapters[name] = source
        runtime = self.runtime.model_dump() | {"adapters": adapters}
        return DeploymentSpec.model_validate(self.model_dump() | {"runtime": runtime})

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


def _check_encoder(spec: DeploymentSpec) -> None:
    task = spec.model.task
    if not task.encodes:
        return
    if spec.runtime.speculation is not None:
        raise ValueError(
            f"runtime.speculation: model.task '{task}' generates nothing to speculate on; remove it"
        )
    if spec.runtime.kv_spill is not None:
        raise ValueError("runtime.kv_spill: an embedding model keeps no KV cache; remove it")
    if spec.runtime.adapters:
        raise ValueError("runtime.adapters: adapters need model.task 'generate'; remove them")
    if spec.runtime.max_adapters is not None:
        raise ValueError("runtime.max_adapters: adapters need model.task 'generate'; remove it")
    if spec.runtime.tool_parser is not None:
        raise ValueError("runtime.tool_parser: an embedding model calls no tools; remove it")


def _devices(spec: DeploymentSpec) -> int:
    """What one replica's model is divided over."""
    gpu = spec.hardware.gpu
    return spec.runtime.tensor_parallel or (gpu.count if gpu else 1)


def _check_tensor_parallel(spec: DeploymentSpec) -> None:
    ranks, gpu = spec.runtime.tensor_parallel, spec.hardware.gpu
    task = spec.model.task
    if task is not Task.GENERATE and (ranks or 1) > 1:
        raise ValueError(f"runtime.tensor_parallel: a model for {task} is not divided; remove it")
    if ranks is not None and gpu is not None and gpu.count != ranks:
        raise ValueError(
            f"runtime.tensor_parallel: {ranks} is not hardware.gpu.count ({gpu.count}), and a "
            "model is divided over all GPUs of its replica; leave it out"
        )
    if _devices(spec) == 1:
        return
    for field, value, what in (
        ("runtime.offload", spec.runtime.offload, "streams no layers"),
        ("runtime.kv_spill", spec.runtime.kv_spill, "spills no prefixes"),
    ):
        if value:
            raise ValueError(
                f"{field}: a model that is divided over several devices {what}; remove it"
            )


def _check_offload(spec: DeploymentSpec) -> None:
    if spec.runtime.offload is not None and spec.model.task is not Task.GENERATE:
        raise ValueError(
            f"runtime.offload: a model for {spec.model.task.value} is kept whole; remove it"
        )


def _check_drift(spec: DeploymentSpec) -> None:
    rollback_on = spec.rollout.rollback_on
    task = spec.model.task
    if task.encodes and rollback_on and rollback_on.drift is not None:
        raise ValueError(
            f"rollout.rollback_on.drift: model.task '{task}' writes no text to compare; remove it"
        )
