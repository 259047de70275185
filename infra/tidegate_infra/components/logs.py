"""Log groups: encrypted, and forgotten after a while."""

from __future__ import annotations

import pulumi
from pulumi_aws import cloudwatch

RETENTION_DAYS = 30


def log_group(
    name: str, path: str, kms_key_arn: pulumi.Input[str], opts: pulumi.ResourceOptions
) -> cloudwatch.LogGroup:
    """A log group under `path`. The key's policy must let CloudWatch Logs use it."""
    return cloudwatch.LogGroup(
        name, name=path, kms_key_id=kms_key_arn, retention_in_days=RETENTION_DAYS, opts=opts
    )
