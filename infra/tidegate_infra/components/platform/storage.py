"""Three buckets: artifacts of models, payloads of requests, and the state of stacks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_aws import s3

from tidegate_infra.components.platform.args import PlatformArgs

MODELS, DEPLOYMENTS, BODIES = "models", "deployments", "control-plane"
"""Where models are in the artifacts, stacks in the state, and bodies in the payloads."""
ENDPOINT_RESULTS = "endpoints/"
"""Where endpoints of modes async and batch write, in the payloads; those expire by themselves."""
ENDPOINT_RESULT_DAYS = 30


@dataclass(frozen=True)
class Kept:
    """What a bucket is for, and how long a version that was replaced or deleted is kept."""

    kind: str
    former_days: int


ARTIFACTS = Kept("artifacts", former_days=30)
PAYLOADS = Kept("payloads", former_days=2)
"""Control planes delete what has expired; this is how long a mistake can be undone."""
STATE = Kept("state", former_days=365)


class Storage(pulumi.ComponentResource):
    """Buckets that are private, encrypted, versioned, and refuse to be asked without TLS."""

    artifacts: s3.Bucket
    payloads: s3.Bucket
    state: s3.Bucket

    def __init__(self, args: PlatformArgs, key_arn: pulumi.Input[str], parent: pulumi.Resource):
        of_parent = pulumi.ResourceOptions(parent=parent)
        super().__init__("tidegate:aws:Storage", args.name, None, of_parent)
        self._args, self._key_arn = args, key_arn
        self._opts = pulumi.ResourceOptions(parent=self)
        self.artifacts, self.payloads, self.state = (
            self._bucket(kept) for kept in (ARTIFACTS, PAYLOADS, STATE)
        )
        self.register_outputs({})

    def _bucket(self, kept: Kept) -> s3.Bucket:
        name = f"{self._args.name}-{kept.kind}"
        bucket = s3.Bucket(
            name,
            bucket=self._args.bucket(kept.kind),
            force_destroy=not self._args.protect,
            tags=self._args.tags,
            opts=self._opts,
        )
        self._close(name, kept, bucket)
        self._encrypt(name, bucket)
        self._expire(name, kept, bucket)
        return bucket

    def _close(self, name: str, kept: Kept, bucket: s3.Bucket) -> None:
        s3.BucketPublicAccessBlock(
            name,
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=self._opts,
        )
        s3.BucketOwnershipControls(
            name,
            bucket=bucket.id,
            rule=s3.BucketOwnershipControlsRuleArgs(object_ownership="BucketOwnerEnforced"),
            opts=self._opts,
        )
        s3.BucketPolicy(
            name,
            bucket=bucket.id,
            policy=json.dumps(_only_tls(self._args.bucket(kept.kind))),
            opts=self._opts,
        )

    def _encrypt(self, name: str, bucket: s3.Bucket) -> None:
        by_key = (
            s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                sse_algorithm="aws:kms", kms_master_key_id=self._key_arn
            )
        )
        s3.BucketServerSideEncryptionConfiguration(
            name,
            bucket=bucket.id,
            rules=[
                s3.BucketServerSideEncryptionConfigurationRuleArgs(
                    apply_server_side_encryption_by_default=by_key, bucket_key_enabled=True
                )
            ],
            opts=self._opts,
        )

    def _expire(self, name: str, kept: Kept, bucket: s3.Bucket) -> None:
        versioning = s3.BucketVersioning(
            name,
            bucket=bucket.id,
            versioning_configuration=s3.BucketVersioningVersioningConfigurationArgs(
                status="Enabled"
            ),
            opts=self._opts,
        )
        s3.BucketLifecycleConfiguration(
            name,
            bucket=bucket.id,
            rules=_lifecycle(kept),
            opts=pulumi.ResourceOptions.merge(
                self._opts, pulumi.ResourceOptions(depends_on=[versioning])
            ),
        )


def _lifecycle(kept: Kept) -> list[s3.BucketLifecycleConfigurationRuleArgs]:
    former = s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
        noncurrent_days=kept.former_days
    )
    unfinished = s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(
        days_after_initiation=2
    )
    everything = s3.BucketLifecycleConfigurationRuleArgs(
        id="former",
        status="Enabled",
        filter=s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
        noncurrent_version_expiration=former,
        abort_incomplete_multipart_upload=unfinished,
    )
    if kept is not PAYLOADS:
        return [everything]
    results = s3.BucketLifecycleConfigurationRuleArgs(
        id="results",
        status="Enabled",
        filter=s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=ENDPOINT_RESULTS),
        expiration=s3.BucketLifecycleConfigurationRuleExpirationArgs(days=ENDPOINT_RESULT_DAYS),
    )
    return [everything, results]


def _only_tls(bucket: str) -> dict[str, Any]:
    statement = {
        "Sid": "OnlyTls",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}
