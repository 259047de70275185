"""Nothing is kept in the clear, and nothing is asked for in the clear."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tidegate_infra.disks import has_own_disk
from tidegate_infra.policy.declared import UNKNOWN, Declared, of_type, statements
from tidegate_infra.policy.finding import Finding

BUCKET = "aws:s3/bucket:Bucket"
BUCKET_KEYS = (
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
)
BUCKET_POLICY = "aws:s3/bucketPolicy:BucketPolicy"

KEYS = {
    "aws:cloudwatch/logGroup:LogGroup": "kmsKeyId",
    "aws:sns/topic:Topic": "kmsMasterKeyId",
    "aws:secretsmanager/secret:Secret": "kmsKeyId",
    "aws:rds/instance:Instance": "kmsKeyId",
}
"""Type → the property that names its key."""


def encryption_findings(resources: Sequence[Declared]) -> Iterator[Finding]:
    """Every resource that keeps something, or takes something, in the clear."""
    for resource in resources:
        key = KEYS.get(resource.type)
        if key is not None and not resource.inputs.get(key):
            yield Finding("encryption", str(resource), f"{key} is not set; name a KMS key")
        for said in OF_TYPE.get(resource.type, _nothing)(resource.inputs):
            yield Finding("encryption", str(resource), said)
    yield from _plain_buckets(resources)


def _nothing(_: Any) -> Iterator[str]:
    return iter(())


def _database(inputs: Any) -> Iterator[str]:
    if inputs.get("storageEncrypted") is not True:
        yield "storage is not encrypted; set storage_encrypted=True"


def _listener(inputs: Any) -> Iterator[str]:
    if inputs.get("protocol") not in ("HTTPS", "TLS"):
        yield f"listens with {inputs.get('protocol')}; set protocol='HTTPS' and a certificate"


def _disks(inputs: Any) -> Iterator[str]:
    mappings = inputs.get("blockDeviceMappings", [])
    if not mappings:
        yield "its disks are as the image has them; name one with encrypted='true'"
    for mapping in mappings:
        if str(mapping.get("ebs", {}).get("encrypted", "false")).lower() != "true":
            yield f"{mapping.get('deviceName')} is not encrypted; set encrypted='true'"


def _volume(inputs: Any) -> Iterator[str]:
    if inputs.get("encrypted") is not True:
        yield "the volume is not encrypted; set encrypted=True"


def _repository(inputs: Any) -> Iterator[str]:
    kinds = {each.get("encryptionType") for each in inputs.get("encryptionConfigurations", [])}
    if kinds != {"KMS"}:
        yield "images are not under a KMS key; set encryption_configurations"


def _hosts(inputs: Any) -> Iterator[str]:
    """A disk that is attached is under a key; results of a queue are too."""
    types = [each.get("instanceType", "") for each in inputs.get("productionVariants", [])]
    if not inputs.get("kmsKeyId") and not (types and all(map(has_own_disk, types))):
        yield "kmsKeyId is not set; name a KMS key"
    output = inputs.get("asyncInferenceConfig", {}).get("outputConfig")
    if output is not None and not output.get("kmsKeyId"):
        yield "results are not under a key; set output_config.kms_key_id"


OF_TYPE: dict[str, Callable[[Any], Iterator[str]]] = {
    "aws:rds/instance:Instance": _database,
    "aws:lb/listener:Listener": _listener,
    "aws:ec2/launchTemplate:LaunchTemplate": _disks,
    "aws:ebs/volume:Volume": _volume,
    "aws:ecr/repository:Repository": _repository,
    "aws-native:sagemaker:EndpointConfig": _hosts,
}


def _plain_buckets(resources: Sequence[Declared]) -> Iterator[Finding]:
    """Buckets without a key, or that may be asked without TLS."""
    keys, policies = of_type(resources, BUCKET_KEYS), of_type(resources, BUCKET_POLICY)
    for bucket in of_type(resources, BUCKET):
        if not any(each.refers_to(bucket, "bucket") and _by_kms(each) for each in keys):
            said = "objects are not under a KMS key; add an encryption configuration of aws:kms"
            yield Finding("encryption", str(bucket), said)
        if not any(each.refers_to(bucket, "bucket") and _refuses_http(each) for each in policies):
            said = "it may be asked without TLS; deny where aws:SecureTransport is false"
            yield Finding("encryption", str(bucket), said)


def _by_kms(configuration: Declared) -> bool:
    return any(
        rule.get("applyServerSideEncryptionByDefault", {}).get("sseAlgorithm") == "aws:kms"
        for rule in configuration.inputs.get("rules", [])
    )


def _refuses_http(policy: Declared) -> bool:
    """A document that is not known yet is judged when it is."""
    return policy.inputs.get("policy") == UNKNOWN or any(
        statement["Effect"] == "Deny"
        and statement.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
        for statement in statements(policy.inputs, "policy")
    )
