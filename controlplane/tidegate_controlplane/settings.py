"""What one control plane process is told, read once at the edge and handed down."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tidegate.protocol.replica import Telemetry
from tidegate_controlplane.settings_aws import SHAPES, fault

Seconds = Annotated[float, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class LimitSettings(_Section):
    """Bounds on what a caller may ask; each has an answer that names it."""

    sync_body_bytes: int = 8 * 1024 * 1024
    invocation_body_bytes: int = 1024**3
    invocation_result_bytes: int = 16 * 1024**3
    """Embeddings of a body can be many times as long as the body."""
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
    s3_buckets: tuple[str, ...] = ()
    """Buckets that a request may name; whoever may ask for work reads and writes them with this
    process's rights."""
    batch_rows: int = 200_000
    """Of the tables of one batch; a file has at most 50,000 lines, as at OpenAI."""
    batch_part_bytes: int = 4 * 1024**3
    """One object of them at a time is kept on this process's disk."""


class WorkSettings(_Section):
    """How durable work is claimed and retried."""

    lease_s: Seconds = 30.0
    heartbeat_s: Seconds = 5.0
    max_attempts: int = 3
    poll_s: Seconds = 0.5
    retry_base_s: Seconds = 1.0
    retry_max_s: Annotated[float, Field(ge=0, le=300)] = 60.0


class WebhookSettings(_Section):
    """Where webhooks may lead, and how hard their delivery is tried."""

    allow_http: bool = False
    """Without TLS, anybody on the way reads and changes what is sent."""
    allow_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks that are not public and may be connected to all the same."""
    ports: tuple[int, ...] = (443, 8443)
    timeout_s: Seconds = 10.0
    """For one try: resolving, connecting, and the answer's head."""
    tries: Annotated[int, Field(ge=1)] = 12
    retry_base_s: Seconds = 5.0
    retry_factor: Annotated[float, Field(ge=1)] = 2.52
    """From one pause to the next: 12 tries take a day."""
    retry_after_max_s: Seconds = 3600.0
    give_up_after_s: Seconds = 5 * 86_400.0
    """A webhook that has failed for so long is disabled."""
    lease_s: Seconds = 30.0
    poll_s: Seconds = 0.5
    concurrency: Annotated[int, Field(ge=1)] = 64
    """Tries at once in this process."""
    concurrency_each: Annotated[int, Field(ge=1)] = 8
    """Of these, to one webhook."""
    per_project: Annotated[int, Field(ge=1)] = 50
    retention_s: Seconds = 14 * 86_400.0
    """How long a delivery can be seen and replayed after it has ended."""

    @model_validator(mode="after")
    def _outlives_a_try(self) -> WebhookSettings:
        if self.lease_s <= self.timeout_s:
            raise ValueError(
                f"lease_s: {self.lease_s:g} must be more than timeout_s ({self.timeout_s:g}), or a "
                "try that still runs would be repeated"
            )
        return self


class EncryptionSettings(_Section):
    """How bodies and results are sealed at rest."""

    keys: tuple[str, ...] = ()
    """Key files, or `kms:<key id>`; the last one wraps. Without any, nothing is sealed."""
    required: bool = False
    """What is not sealed is not believed, also when it is from before encryption."""


class RetentionSettings(_Section):
    """How what is no longer needed is found and deleted."""

    every_s: Seconds = 60.0
    row_s: Seconds = 30 * 86_400.0
    """A finished request or batch is listed for so long, with or without its result."""
    orphans_every_s: Seconds = 3600.0
    orphan_age_s: Seconds = 86_400.0
    """An object without a row is deleted when it is older than this on the store's clock, ..."""
    orphan_grace_s: Seconds = 600.0
    """... and was found without one for so long on this process's own."""


class ReconcileSettings(_Section):
    """How the level-triggered loop paces itself."""

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


class RaySettings(_Section):
    """A Ray cluster, for what is deployed with `hardware.provisioner: ray`."""

    address: str = "auto"
    """`host:port` of a head node, `auto` for a cluster that runs on this machine, or `local` for
    one that starts and ends with this process."""
    namespace: str = "tidegate"
    """Another one for each platform that uses the cluster: whatever has a name in it is ended at
    the start."""
    zygote: bool = True
    """On each node one process imports the runtime once, and forks replicas from it."""
    node_dir: Path | None = None
    """Where a node keeps artifacts and logs; the path of `data_dir` there, with `node` under it,
    when absent. A node's own environment variable TIDEGATE_NODE_DIR goes before it."""
    node_timeout_s: Seconds = 5.0
    """A node whose agent and replicas are silent for so long is lost."""
    capacity_wait_s: Seconds = 10.0
    """How long a replica waits for room on a node before its start is put off."""


class AwsSettings(_Section):
    """An AWS account, for what is deployed with `hardware.provisioner: aws`."""

    region: str
    state: str
    """`s3://bucket/prefix` for the state of the stacks."""
    artifacts: str
    """`s3://bucket/prefix` for models."""
    image: str
    """URI of the runtime image in the account's registry."""
    execution_role_arn: str
    """What an endpoint may do: read `artifacts`, pull `image`, write its logs."""
    subnets: Annotated[tuple[str, ...], Field(min_length=1)]
    """Private ones."""
    security_groups: Annotated[tuple[str, ...], Field(min_length=1)]
    kms_key: str
    """ARN of what encrypts the secrets in `state` and the endpoints' volumes."""
    profile: str | None = None
    """Of the credentials file; the usual chain when absent."""
    name: Annotated[str, Field(pattern=r"^[a-z](-?[a-z0-9])*$", max_length=23)] = "tidegate"
    """What everything of this installation is called first; another one needs another."""
    start_timeout_s: Seconds = 1800.0
    """For a copy: an instance, the model's download and its load."""
    keep_copies_s: Seconds = 300.0
    """How long copies outlive the control plane that asked for them, for the next one to use; it
    ends those that nobody wants by then. 0 ends them with it."""
    drift_every_s: Seconds = 3600.0
    """Between two looks at whether AWS is as the stacks left it; 0 never looks."""

    @field_validator(*SHAPES)
    @classmethod
    def _is_what_aws_takes(cls, value: str, info: ValidationInfo) -> str:
        if why := fault(str(info.field_name), value, info.data.get("region")):
            raise ValueError(why)
        return value


class PeerSettings(_Section):
    """How control planes that share a database look after each other."""

    lease_s: Seconds = 10.0
    """A leader that does not beat for so long is replaced."""
    beat_s: Seconds = 1.0
    """Between two signs of life."""
    poll_s: Seconds = 0.25
    """Between two looks at what the others say."""
    stale_s: Seconds = 5.0
    """What one that does not beat for so long is asked for counts no more."""
    forget_s: Seconds = 60.0
    """And then its row is removed."""


class Settings(_Section):
    """All of it; `data_dir` belongs to one control plane at a time."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8686
    objects: str | None = None
    """`s3://bucket/prefix` for payloads and results, or a directory; one under `data_dir` when
    absent."""
    database: str | None = None
    """`postgresql://user@host/name`; a SQLite file under `data_dir` when absent."""
    replica_host: str = "127.0.0.1"
    """Where replicas of this machine listen: an address that other control planes reach, if any."""
    warm_bytes: Annotated[int, Field(ge=0)] = 1024**3
    """What the zygote may keep in memory of the models used last: tokenizers, no weights."""
    limits: LimitSettings = LimitSettings()
    work: WorkSettings = WorkSettings()
    encryption: EncryptionSettings = EncryptionSettings()
    retention: RetentionSettings = RetentionSettings()
    webhooks: WebhookSettings = WebhookSettings()
    reconcile: ReconcileSettings = ReconcileSettings()
    ray: RaySettings | None = None
    aws: AwsSettings | None = None
    peers: PeerSettings = PeerSettings()
    telemetry: Telemetry = Telemetry()
    shutdown_s: Seconds = 30.0
    """Seconds that requests in flight may finish after SIGTERM."""

    @property
    def database_path(self) -> Path:
        return self.data_dir / "tidegate.db"

    @property
    def objects_dir(self) -> Path:
        """Where objects are when they are not in S3."""
        named = None if self.objects_in_s3 else self.objects
        return Path(named) if named else self.data_dir / "objects"

    @property
    def objects_in_s3(self) -> bool:
        return self.objects is not None and not self.objects.startswith("/")

    @property
    def spool_dir(self) -> Path:
        """Of objects on their way; emptied at each start."""
        return self.data_dir / "spool"

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
    def restoring_path(self) -> Path:
        """There while a restore into the directory has not ended."""
        return self.data_dir / "restoring"

    @property
    def pepper_path(self) -> Path:
        return self.data_dir / "pepper"
