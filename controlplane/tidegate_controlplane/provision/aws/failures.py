"""What AWS or Pulumi said went wrong, and the next command to type.

The texts are those of SageMaker's `FailureReason`, of AWS error codes, and of the Pulumi CLI.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tidegate_controlplane.domain.replicas import Exited, NoCapacity
from tidegate_controlplane.settings import AwsSettings

_INSTANCE_TYPE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9]+")
MOST_CHARACTERS = 600
"""Of what was said; the end of it names the cause."""


@dataclass(frozen=True)
class Failure:
    """Why something in AWS is not as it should be."""

    reason: str
    message: str
    capacity: bool = False
    """The model is not at fault, and later there may be room."""
    refused: bool = False
    """Trying again cannot help before somebody has changed something."""

    @property
    def observation(self) -> NoCapacity | Exited:
        """What this means for a replica that waits for it."""
        if self.capacity:
            return NoCapacity(self.message)
        return Exited(1, self.reason, self.message, refused=self.refused)


class AwsFailed(Exception):
    """A step in AWS failed; what to do is in the failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True)
class _Kind:
    pattern: re.Pattern[str]
    reason: str
    remedy: str
    capacity: bool = False
    refused: bool = False


def _kind(pattern: str, reason: str, remedy: str, **rest: bool) -> _Kind:
    return _Kind(re.compile(pattern, re.IGNORECASE), reason, remedy, **rest)


KINDS = (
    _kind(
        r"ResourceLimitExceeded|service limit|ServiceQuota",
        "QuotaExceeded",
        "ask for more: aws service-quotas list-service-quotas --service-code sagemaker "
        "--region {region} "
        "--query \"Quotas[?contains(QuotaName, '{instance_type} for endpoint')]\"",
        capacity=True,
    ),
    _kind(
        r"InsufficientInstanceCapacity|insufficient capacity|Unable to provision requested ML",
        "NoCapacity",
        "it is tried again; declare another `hardware.gpu.type`, or set another `aws.region`",
        capacity=True,
    ),
    _kind(
        r"ExpiredToken|InvalidClientTokenId|UnrecognizedClient|security token|"
        r"no valid credential|unable to locate credentials|NoCredentialProviders",
        "NoCredentials",
        "look who this process is: aws sts get-caller-identity{profile}",
    ),
    _kind(
        r"AccessDenied|is not authorized to perform|UnauthorizedOperation",
        "AccessDenied",
        "allow it to whoever this is: aws sts get-caller-identity{profile}",
    ),
    _kind(
        r"CannotPullContainer|failed to pull|(image|repository).{0,80}(does not exist|not found)|"
        r"(does not exist|not found).{0,80}(image|repository)",
        "ImageNotFound",
        "see what there is: aws ecr describe-images --region {region} "
        "--repository-name {repository}; then set `aws.image`",
        refused=True,
    ),
    _kind(
        r"health check|ping",
        "Crashed",
        "see what it said: aws logs tail /aws/sagemaker/InferenceComponents/{component} "
        "--region {region}",
    ),
)


def explain(said: str, settings: AwsSettings, component: str = "") -> Failure:
    """The failure behind what was said, with what to do about it."""
    cause = " ".join(said.split())[-MOST_CHARACTERS:]
    for kind in KINDS:
        if kind.pattern.search(said):
            remedy = kind.remedy.format(
                region=settings.region,
                instance_type=named.group() if (named := _INSTANCE_TYPE.search(said)) else "",
                profile=f" --profile {settings.profile}" if settings.profile else "",
                repository=settings.image.rpartition("/")[2].partition(":")[0].partition("@")[0],
                component=component,
            )
            return Failure(kind.reason, f"{cause}; {remedy}", kind.capacity, kind.refused)
    return Failure("AwsFailed", cause)
