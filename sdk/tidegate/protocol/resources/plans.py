"""A declaration with its defaults resolved, and what applying it would change."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tidegate.protocol.resources.base import Resource
from tidegate.protocol.resources.models import ModelFacts
from tidegate.protocol.resources.offers import ConsideredOffer, PlannedOffer
from tidegate.spec import GpuSpec, KvSpillSpec, ScheduleSpec, SpeculationSpec


class ChangeView(Resource):
    field: str
    before: Any = None
    after: Any = None


class PlannedOffload(Resource):
    """Layers that do not fit the device and are brought to it anew at each step."""

    resident_bytes: int = Field(description="of the device's memory for weights")
    streamed_layers: int
    step_bytes: int = Field(description="that each step brings")
    link: Literal["disk", "host"] = Field(description="where they come from")
    steps_per_gb: float = Field(
        description="steps a second, at most, for each GB/s that the link gives"
    )


class PlannedDraft(Resource):
    """The draft model of `speculation.draft_model`, as it was found when it was declared."""

    digest: str
    revision: str | None = Field(default=None, description="the commit, for hf:// sources")
    precision: str
    weights_bytes: int = Field(description="bytes of the weights in that precision")
    kv_cache_bytes: int = Field(description="for as many tokens as the model's own KV cache holds")


class PlannedHeads(Resource):
    """The heads of `speculation.heads`, as they were found when they were declared."""

    digest: str = Field(description="sha256 of heads.json, which has that of the weights")
    revision: str | None = Field(default=None, description="the commit, for hf:// sources")
    weights_bytes: int


class ResolvedPlan(Resource):
    """A declaration with every default resolved and its cost predicted."""

    provisioner: str
    precision: str
    context_tokens: int
    max_sequences: int
    kv_cache_bytes: int
    weights_bytes: int = Field(description="bytes of the weights in the planned precision")
    memory_bytes: int = Field(description="predicted memory of one replica")
    adapters_bytes: int = Field(
        default=0, description="of that, what the largest `max_adapters` of its adapters take"
    )
    max_adapters: int = Field(default=8, description="adapters in one replica's memory at once")
    threads: int | None = None
    gpu: GpuSpec | None = Field(default=None, description="of one replica")
    tensor_parallel: int = Field(default=1, description="devices that the model is divided over")
    offload: PlannedOffload | None = Field(default=None, description="null where all weights fit")
    offer: PlannedOffer | None = Field(default=None, description="null where nothing is rented")
    speculation: SpeculationSpec | None = None
    draft: PlannedDraft | None = Field(default=None, description="of speculation by a draft model")
    heads: PlannedHeads | None = Field(default=None, description="of speculation by heads")
    kv_spill: KvSpillSpec | None = None
    tool_parser: Literal["hermes", "llama3", "mistral"] | None = Field(
        default=None, description="null where the chat template says it"
    )
    min_replicas: int
    max_replicas: int
    target_in_flight: int | None = Field(default=None, description="null where it is learned")
    idle_timeout_s: float | None = Field(description="null where it is learned")
    cold_start_price_s: float | None = Field(
        default=None, description="replica-seconds; null for five cold starts"
    )
    clear_s: float = Field(
        default=10.0, description="seconds that a backlog may last once replicas are ready"
    )
    schedule: tuple[ScheduleSpec, ...] = ()
    drain_timeout_s: float
    cold_start_s: float | None = Field(
        default=None, description="median of measured cold starts of this model; null before one"
    )


class PlanView(Resource):
    """The answer of a dry run: what would change, what would run, and nothing is touched."""

    name: str
    action: Literal["create", "update", "none"]
    changes: list[ChangeView]
    new_revision: bool
    model: ModelFacts
    plan: ResolvedPlan
    offers: list[ConsideredOffer] = Field(
        default=[], description="those that fit, the best one first, then the others"
    )
    warnings: list[str] = Field(default=[])
