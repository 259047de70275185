"""Nothing answers the internet unless somebody said so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tidegate_infra.policy.declared import Declared, of_type, statements
from tidegate_infra.policy.finding import Finding

EVERYONE = ("0.0.0.0/0", "::/0")
BUCKET = "aws:s3/bucket:Bucket"
ACCESS_BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
BLOCKS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")


def public_findings(resources: Sequence[Declared]) -> Iterator[Finding]:
    """Every resource that could be reached from the internet."""
    for resource in resources:
        for said in OF_TYPE.get(resource.type, _nothing)(resource.inputs):
            yield Finding("public", str(resource), said)
    yield from _open_buckets(resources)


def _nothing(_: Any) -> Iterator[str]:
    return iter(())


def _load_balancer(inputs: Any) -> Iterator[str]:
    if inputs.get("internal") is not True:
        yield "the load balancer faces the internet; set internal=True"


def _database(inputs: Any) -> Iterator[str]:
    if inputs.get("publiclyAccessible", False):
        yield "the database has a public address; set publicly_accessible=False"


def _service(inputs: Any) -> Iterator[str]:
    if inputs.get("networkConfiguration", {}).get("assignPublicIp", False):
        yield "its tasks get public addresses; set assign_public_ip=False"


def _subnet(inputs: Any) -> Iterator[str]:
    if inputs.get("mapPublicIpOnLaunch", False):
        yield "what starts there gets a public address; set map_public_ip_on_launch=False"


def _instances(inputs: Any) -> Iterator[str]:
    for interface in inputs.get("networkInterfaces", []):
        if str(interface.get("associatePublicIpAddress", False)).lower() == "true":
            yield "its instances get public addresses; set associate_public_ip_address='false'"


def _ingress_rule(inputs: Any) -> Iterator[str]:
    for key in ("cidrIpv4", "cidrIpv6"):
        if inputs.get(key) in EVERYONE:
            yield f"lets in everybody ({inputs[key]}); name the network that may come"


def _inline_ingress(inputs: Any) -> Iterator[str]:
    for rule in inputs.get("ingress", []):
        for network in [*rule.get("cidrBlocks", []), *rule.get("ipv6CidrBlocks", [])]:
            if network in EVERYONE:
                yield f"lets in everybody ({network}); name the network that may come"


def _sagemaker_network(inputs: Any) -> Iterator[str]:
    if not inputs.get("vpcConfig", {}).get("subnets"):
        yield "runs outside a private network; set vpc_config"


def _endpoint_config(inputs: Any) -> Iterator[str]:
    """A variant with a model takes the model's network; one of copies has its own."""
    if any("modelName" not in variant for variant in inputs.get("productionVariants", [])):
        yield from _sagemaker_network(inputs)


def _resource_policy(inputs: Any) -> Iterator[str]:
    """A policy on a bucket, key, topic or secret that lets in anybody, unconditionally."""
    for statement in statements(inputs, "policy"):
        anybody = statement.get("Principal") in ("*", {"AWS": "*"})
        if statement.get("Effect") == "Allow" and anybody and not statement.get("Condition"):
            yield f"its policy lets in anybody ({statement.get('Sid', 'no Sid')}); add a condition"


OF_TYPE: dict[str, Callable[[Any], Iterator[str]]] = {
    "aws:lb/loadBalancer:LoadBalancer": _load_balancer,
    "aws:rds/instance:Instance": _database,
    "aws:ecs/service:Service": _service,
    "aws:ec2/subnet:Subnet": _subnet,
    "aws:ec2/launchTemplate:LaunchTemplate": _instances,
    "aws:ec2/securityGroup:SecurityGroup": _inline_ingress,
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _ingress_rule,
    "aws:sagemaker/model:Model": _sagemaker_network,
    "aws-native:sagemaker:EndpointConfig": _endpoint_config,
    "aws:s3/bucketPolicy:BucketPolicy": _resource_policy,
    "aws:kms/key:Key": _resource_policy,
    "aws:sns/topicPolicy:TopicPolicy": _resource_policy,
    "aws:secretsmanager/secretPolicy:SecretPolicy": _resource_policy,
}


def _open_buckets(resources: Sequence[Declared]) -> Iterator[Finding]:
    """Buckets without all four blocks of public access."""
    blocks = of_type(resources, ACCESS_BLOCK)
    for bucket in of_type(resources, BUCKET):
        whole = [block for block in blocks if all(block.inputs.get(key) is True for key in BLOCKS)]
        if not any(block.refers_to(bucket, "bucket") for block in whole):
            said = "public access is not blocked; add a BucketPublicAccessBlock with all four set"
            yield Finding("public", str(bucket), said)
