"""What the settings of an AWS account look like; AWS would refuse others after minutes."""

from __future__ import annotations

import re

_IN_S3 = (
    re.compile(r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$"),
    "must be s3://bucket/prefix",
)
SHAPES: dict[str, tuple[re.Pattern[str], str]] = {
    "region": (
        re.compile(r"^[a-z]{2}(-[a-z]+)+-[0-9]$"),
        "must be a region, such as eu-west-1",
    ),
    "state": _IN_S3,
    "artifacts": _IN_S3,
    "image": (
        re.compile(r"^\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com/[a-z0-9][a-z0-9._/-]*[:@].+$"),
        "must be ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY:TAG, or @sha256:…",
    ),
    "execution_role_arn": (
        re.compile(r"^arn:aws:iam::\d{12}:role/.+$"),
        "must be arn:aws:iam::ACCOUNT:role/NAME; aws iam get-role prints it",
    ),
    "kms_key": (
        re.compile(r"^arn:aws:kms:[a-z0-9-]+:\d{12}:key/.+$"),
        "must be the ARN of a key, which aws kms describe-key prints",
    ),
}
OF_A_REGION = ("image", "kms_key")
"""What must be in the region that the settings name, and says in which it is."""


def fault(field: str, value: str, region: str | None) -> str | None:
    """Why a field of the section `aws` cannot have this value; None when it can."""
    shape, remedy = SHAPES[field]
    if not shape.match(value):
        return remedy
    if field in OF_A_REGION and region and region not in re.split("[.:]", value):
        return f"must be in {region}, which `region` names"
    return None
