"""What can be said of an inference endpoint, in any of the four modes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import pulumi

from tidegate.spec import Mode
from tidegate_infra.disks import has_own_disk

TARGET_UTILISATION = 0.7
"""Of a copy's concurrency, where another copy is started. Knative's default; the rest serves the
requests that come while the new copy loads."""
VOLUME_GB = 64
"""Of a disk whose size nobody has said."""


class ScaledBy(StrEnum):
    """Who owns the number of copies."""

    AWS = "aws"
    """Application Auto Scaling, by the policies that the component makes."""
    TIDEGATE = "tidegate"
    """A Tidegate control plane: it holds requests and sets the copy count itself, so the component
    makes no scaling policy that would set it back."""


@dataclass(frozen=True, kw_only=True)
class EndpointFields:
    """One model behind one endpoint.

    Ids, ARNs and `s3://` locations may be outputs of other resources; what decides the shape of the
    graph is plain.
    """

    name: str
    """The endpoint's exact name, and its inference component's; part of every alarm's dimension."""
    mode: Mode
    image: pulumi.Input[str]
    """The runtime image in ECR: `account.dkr.ecr.region.amazonaws.com/repository@sha256:…`."""
    artifact_url: pulumi.Input[str]
    """Prefix of a built artifact, `s3://bucket/prefix/`. SageMaker puts it at /opt/ml/model."""
    additional_urls: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    """Prefixes beside the artifact, as of a draft model, by the name of their channel. SageMaker
    puts each at /opt/ml/additional-model-data-sources/<channel>; refused for mode batch."""
    execution_role_arn: pulumi.Input[str]
    """What the containers run as; `Platform.execution_role_arn` has just what they need."""
    subnet_ids: Sequence[pulumi.Input[str]]
    """Private subnets."""
    security_group_ids: Sequence[pulumi.Input[str]]
    kms_key_arn: pulumi.Input[str]
    """Encrypts volumes, results, topics and logs."""
    instance_type: str
    """`ml.g6.xlarge`; for mode batch, which runs on EC2, `g6.xlarge`."""
    memory_mb: int
    """Host memory that one copy needs."""
    accelerators: int = 1
    """GPUs of one copy; 0 serves on the CPU."""
    cpu: int = 2
    """CPU cores of one copy."""
    copies_per_instance: int = 1
    """How many copies fit one instance; more than one only with inference components."""
    min_copies: int = 0
    """Realtime: at least 1. The other modes rest at 0."""
    max_copies: int = 1
    max_concurrency: int = 8
    """Requests that one copy serves at once."""
    environment: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    """Settings of the runtime image: `TIDEGATE_` and a field of `ReplicaConfig`, in upper case."""
    scaled_by: ScaledBy = ScaledBy.AWS
    idle_s: int = 300
    """Quiet time before a copy is taken away."""
    startup_timeout_s: int = 900
    """For a container to answer its first health check, the model included."""
    download_timeout_s: int = 1800
    """For the artifact to reach the instance."""
    volume_gb: int | None = None
    """Of an instance's disk; holds the image and the artifact. 64 when absent; on SageMaker, types
    with a disk of their own (ml.g5, ml.g6, …) take none."""
    inference_ami: str | None = None
    """SageMaker's name for the host image, which fixes the GPU driver; its default when absent.
    CUDA 13 needs `al2023-ami-sagemaker-inference-gpu-4-1`."""
    alarm_topic_arn: pulumi.Input[str] | None = None
    """Where alarms speak; silent when absent, except those that wake the endpoint."""
    payload_url: pulumi.Input[str] | None = None
    """Async: where results and errors are written, `s3://bucket/prefix/`. Batch: where jobs read
    and write. Required there and refused elsewhere."""
    attempts: int = 5
    """Batch: runs of one job, counting those that a reclaimed spot instance cut short."""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def min_instances(self) -> int:
        return math.ceil(self.min_copies / self.copies_per_instance)

    @property
    def max_instances(self) -> int:
        return math.ceil(self.max_copies / self.copies_per_instance)

    @property
    def attached_gb(self) -> int | None:
        """Of the volume that SageMaker attaches; None where it attaches none."""
        return None if has_own_disk(self.instance_type) else self.volume_gb or VOLUME_GB

    @property
    def volume_key_arn(self) -> pulumi.Input[str] | None:
        """Seals that volume; a local disk is sealed by its machine, and SageMaker takes no key."""
        return None if has_own_disk(self.instance_type) else self.kms_key_arn

    @property
    def target_concurrency(self) -> float:
        """Requests in flight per copy that autoscaling steers to."""
        return self.max_concurrency * TARGET_UTILISATION

    @property
    def settings(self) -> dict[str, pulumi.Input[str]]:
        """The container's environment: as many sequences as requests are sent to it."""
        return {"TIDEGATE_MAX_SEQUENCES": str(self.max_concurrency), **self.environment}

    def payload(self, part: str) -> pulumi.Output[str]:
        """A place below `payload_url`."""
        return pulumi.Output.from_input(self.payload_url).apply(lambda url: f"{url}{part}")
