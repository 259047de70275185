"""The control plane's resources under `/api/v1`: what is stored, as its readers see it.

Times are ISO 8601 in UTC; durations carry their unit in the name. Errors are RFC 9457 problems.
"""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from tidegate.offers import Covers
from tidegate.spec import (
    DeploymentSpec,
    GpuSpec,
    KvSpillSpec,
    Mode,
    ScheduleSpec,
    SpeculationSpec,
    Strategy,
)

T = TypeVar("T")

Region = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-[1-9]$", max_length=32)]
"""Of AWS, such as `us-east-1`."""


class Resource(BaseModel):
    """A shape we return: a reader of an older version ignores the fields of a newer one."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Request(BaseModel):
    """A shape we accept: unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Resource, Generic[T]):
    """One page of a list. Ask again with `after=<next>` while `has_more`."""

    data: list[T]
    has_more: bool = False
    next: str | None = Field(default=None, description="cursor of the next page")


# --- errors ---------------------------------------------------------------------------------------


class ProblemIssue(Resource):
    field: str
    value: Any = None
    message: str


class Problem(Resource):
    """RFC 9457 problem details, with media type `application/problem+json`."""

    type: str = Field(description="`urn:tidegate:problem:<code>`")
    title: str
    status: int
    detail: str
    instance: str | None = None
    code: str
    issues: list[ProblemIssue] = []
    request_id: str | None = None


# --- deployments ----------------------------------------------------------------------------------


class DeploymentPhase(StrEnum):
    PENDING = "pending"
    PLANNING = "planning"
    PROVISIONING = "provisioning"
    READY = "ready"
    UPDATING = "updating"
    IDLE = "idle"
    WAKING = "waking"
    DEGRADED = "degraded"
    PAUSED = "paused"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"


class ReplicaPhase(StrEnum):
    REQUESTED = "requested"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    TERMINATED = "terminated"
    FAILED = "failed"


class Condition(Resource):
    type: str
    status: bool
    reason: str
    message: str
    since: datetime


class ReplicaCounts(Resource):
    desired: int = 0
    starting: int = 0
    ready: int = 0
    draining: int = 0


class DeploymentView(Resource):
    id: str
    name: str
    mode: Mode
    phase: DeploymentPhase
    message: str = Field(default="", description="one sentence on where it stands")
    spec: DeploymentSpec
    generation: int = Field(description="rises by one with each changed declaration")
    observed_generation: int = Field(description="the generation that the replicas now serve")
    revision: str | None = Field(default=None, description="the revision that now serves")
    replicas: ReplicaCounts
    conditions: list[Condition] = []
    created_at: datetime
    updated_at: datetime


class RevisionView(Resource):
    id: str
    number: int
    generation: int
    model_version: str
    plan: ResolvedPlan
    created_at: datetime


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


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class EventView(Resource):
    id: str
    time: datetime
    object: str = Field(description="`deployment/<name>` or `replica/<id>`")
    severity: Severity
    reason: str = Field(description="a CamelCase word for machines")
    message: str


class DecisionView(Resource):
    """What the autoscaler decided, and all that it knew; recorded when the answer changes."""

    id: str
    time: datetime
    desired: int = Field(description="replicas that there should be")
    called_for: int = Field(description="replicas that the work alone called for")
    term: str = Field(description="the consideration that decided")
    sentence: str
    inputs: dict[str, Any] = Field(
        description="`bounds` and `signals`: the same ones give the same decision again"
    )


class LogLine(Resource):
    replica: str
    offset: int = Field(description="byte offset after this line in the replica's log")
    text: str


class LogPage(Resource):
    """Log lines; ask again with `cursor=<cursor>` for those written since."""

    data: list[LogLine]
    cursor: str


class ScaleRequest(Request):
    """Change the replica bounds of a deployment; an absent bound stays as it is."""

    min_replicas: Annotated[int, Field(ge=0, le=1000)] | None = None
    max_replicas: Annotated[int, Field(ge=1, le=1000)] | None = None


class AdapterSource(Request):
    """Where an adapter comes from."""

    source: Annotated[str, Field(min_length=1, max_length=2048)]


# --- rollouts -------------------------------------------------------------------------------------


class RolloutPhase(StrEnum):
    PREFLIGHT = "preflight"
    """Is there room for it at all?"""
    SHIFTING = "shifting"
    """Replicas start or end for the present step."""
    BAKING = "baking"
    """The present step is watched."""
    PROMOTED = "promoted"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"


class OutcomeView(Resource):
    """How one revision has answered since the present step began."""

    answered: int = 0
    failed: int = Field(default=0, description="5xx answers and cut streams")
    streams: int = Field(default=0, description="answers with a time to first token")
    first_token_s: float | None = Field(default=None, description="median of these")
    timed: int = Field(default=0, description="answers with a time per token")
    per_token_s: float | None = Field(default=None, description="median of these")


class LikenessView(Resource):
    """How the new revision's answers to copied requests compare with those that were returned."""

    compared: int = 0
    greedy: int = Field(default=0, description="of them, requests with temperature 0")
    agreement: float | None = Field(
        default=None, description="greedy: mean share of the text that is equal from its start on"
    )
    same_finish: float | None = Field(default=None, description="share with an equal finish reason")
    length_ratio: float | None = Field(default=None, description="mean length of new over old")


class ComparisonView(Resource):
    """The former revision beside the new one."""

    stable: OutcomeView = OutcomeView()
    new: OutcomeView = OutcomeView()
    likeness: LikenessView | None = None


class RolloutView(Resource):
    id: str
    deployment: str
    strategy: Strategy
    phase: RolloutPhase
    step: int = Field(description="counted from 0; `steps` when the new revision takes all")
    steps: int
    from_revision: int = Field(description="the number of the revision that serves until the end")
    to_revision: int
    weight: float = Field(description="percent of the requests that the new revision answers")
    requested: Literal["promote", "abort"] | None = None
    reason: str = Field(description="a CamelCase word for machines")
    message: str
    comparison: ComparisonView | None = None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None


class RollbackRequest(Request):
    """Go back to a former revision; the one before the present when `to` is absent."""

    to: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None


# --- plans ----------------------------------------------------------------------------------------


class ModelFacts(Resource):
    """What the files of a model say about it."""

    format: Literal["safetensors", "gguf"]
    architecture: str
    digest: str = Field(description="sha256 over names, sizes and contents' fingerprints")
    parameters: int
    weights_bytes: int = Field(description="bytes of the weights as stored")
    context_tokens: int
    layers: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    embedding_parameters: int = Field(default=0, description="of one table, vocabulary by width")
    tied: bool = Field(default=True, description="the input embedding is the last layer too")
    stored_bits: int = Field(default=16, description="of most weights as stored")
    idle_parameters: int = Field(
        default=0, description="of the experts that a token of a mixture does not use"
    )
    precision: str | None = Field(
        default=None, description="of an artifact, which was built in one and stays in it"
    )
    tokens_digest: str | None = Field(
        default=None,
        description="sha256 over its tokens and their numbers; null where no file says them",
    )


class ChangeView(Resource):
    field: str
    before: Any = None
    after: Any = None


class PlannedOffer(Resource):
    """The machine of the catalogue that replicas are planned for. US dollars, without tax.

    The bounds are of one token after another, which reads all of a dense model's weights, and of a
    mixture's only the experts that it uses.
    """

    provider: str
    covers: Covers
    region: str
    instance_type: str
    gpu: str | None = Field(default=None, description="its GPUs' type")
    gpus: int = Field(default=0, description="of one replica")
    slice: str | None = Field(default=None, description="of one GPU, such as `1g.10gb`")
    replicas: int = Field(description="that one machine has room for")
    usable_bytes: int = Field(description="for one replica's weights and KV cache")
    utilisation: float = Field(description="usable_bytes of the memory there is")
    usd_per_hour: float = Field(description="of one machine, on demand")
    spot_usd_per_hour: float | None = None
    source: str = Field(description="who says what it costs")
    as_of: date = Field(description="of the price, or of reading it")
    minimum_usd_per_month: float = Field(
        description="of the replicas that are always there, 730 hours a month; 0 without any"
    )
    decode_tokens_per_s: float | None = Field(
        default=None, description="of one sequence, at most: bandwidth over the weights' bytes"
    )
    batch_tokens_per_s: float | None = Field(
        default=None, description="of max_sequences in one batch, at most"
    )
    usd_per_million_tokens: float | None = Field(
        default=None, description="at least: at batch_tokens_per_s without a pause"
    )


class ConsideredOffer(Resource):
    """An offer that the plan looked at."""

    instance_type: str
    gpu: str | None = None
    gpus: int = 0
    usd_per_hour: float
    usd_per_month: float | None = Field(
        default=None, description="for the replicas always there, at least one; null: does not fit"
    )
    reason: str | None = Field(default=None, description="why it does not fit")


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
    warnings: list[str] = []


class OfferRefresh(Request):
    """Ask for the prices of AWS regions anew."""

    regions: Annotated[list[Region], Field(min_length=1, max_length=16)]


class OfferRefreshed(Resource):
    regions: list[str]
    offers: int = Field(description="that have a price now, over all regions")
    as_of: date


# --- models, keys, usage --------------------------------------------------------------------------


class ModelVersionView(Resource):
    id: str
    digest: str
    source: str
    revision: str | None = None
    facts: ModelFacts
    created_at: datetime


class ModelView(Resource):
    id: str
    source: str
    task: str
    versions: list[ModelVersionView]
    created_at: datetime


class KeyRole(StrEnum):
    ADMIN = "admin"
    """Everything, keys included."""
    INFERENCE = "inference"
    """The data plane only: `/v1`."""


class ApiKeyRequest(Request):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    role: KeyRole = KeyRole.INFERENCE
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = 60
    """None for no limit."""
    tokens_per_minute: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = 100_000
    """None for no limit."""


class ApiKeyView(Resource):
    id: str
    name: str
    role: KeyRole
    requests_per_minute: int | None
    tokens_per_minute: int | None
    created_at: datetime
    revoked_at: datetime | None = None


class ApiKeyCreated(ApiKeyView):
    key: str = Field(description="the secret, shown this once")


class UsageView(Resource):
    deployment: str
    mode: Mode
    requests: int
    prompt_tokens: int
    completion_tokens: int


class VersionView(Resource):
    version: str


RevisionView.model_rebuild()


class KeyUse(Resource):
    """How much is sealed under a key."""

    key: str | None = Field(description="null: plain, from before encryption")
    objects: int
    rows: int


class EncryptionView(Resource):
    keys: list[str] = Field(description="those given, the newest last")
    newest: str | None = Field(description="the one that seals; null when encryption is off")
    required: bool = Field(description="what is not sealed is refused")
    running: bool = False
    started_at: datetime | None = Field(default=None, description="of the pass, if any")
    finished_at: datetime | None = None
    rewrapped: int = Field(default=0, description="rows and objects put under the newest key")
    failed: int = 0
    errors: list[str] = []
    uses: list[KeyUse] = []

    @property
    def seen(self) -> int:
        """Rows and objects that the pass has looked at."""
        return self.failed + sum(use.objects + use.rows for use in self.uses)


class EncryptionPass(Request):
    rewrap: bool = Field(description="put everything under the newest key, not only count it")
