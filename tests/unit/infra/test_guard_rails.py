"""What the guard rails say of resources, and that every component keeps them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pulumi
import pytest
from pulumi.runtime import rpc
from pulumi_aws import lb
from tests.unit.infra.arguments import endpoint_args, platform_args
from tests.unit.infra.declarations import endpoint_resources, the

from tidegate.spec import Mode
from tidegate_infra.components.inference_endpoint.endpoint import InferenceEndpoint
from tidegate_infra.components.platform.platform import Platform
from tidegate_infra.errors import GuardRailsBroken
from tidegate_infra.graph.offline import declared_by
from tidegate_infra.policy.at_rest import at_rest
from tidegate_infra.policy.declared import UNKNOWN, Declared
from tidegate_infra.policy.finding import Finding
from tidegate_infra.policy.guard import guard
from tidegate_infra.policy.rails import GuardRails

ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
POLICY = "aws:appautoscaling/policy:Policy"
TARGET = "aws:appautoscaling/target:Target"
BUCKET = Declared("aws:s3/bucket:Bucket", "b")
BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
GPU_PRICES = {"ml.g6.xlarge": 1.0, "g6.xlarge": 0.8}


def said(resources: Sequence[Declared], **rails: Any) -> list[str]:
    return [str(finding) for finding in GuardRails(**rails).findings(resources)]


@pytest.mark.parametrize("mode", Mode)
def test_every_endpoint_keeps_the_guard_rails(mode: Mode) -> None:
    limit = 730.0 if mode is Mode.REALTIME else 0.0
    assert said(endpoint_resources(mode), max_monthly_usd=limit, prices=GPU_PRICES) == []


@pytest.mark.parametrize("mode", [Mode.REALTIME, Mode.SERVERLESS])
def test_an_endpoint_that_a_control_plane_scales_keeps_them_too(mode: Mode) -> None:
    assert said(endpoint_resources(mode, scaled_by="tidegate")) == []


INPUTS: list[tuple[str, dict[str, Any], str]] = [
    ("aws:lb/loadBalancer:LoadBalancer", {}, "public: .*set internal=True"),
    ("aws:lb/loadBalancer:LoadBalancer", {"internal": False}, "public: .*set internal=True"),
    (
        "aws:rds/instance:Instance",
        {"publiclyAccessible": True, "storageEncrypted": True, "kmsKeyId": "k"},
        "public: .*publicly_accessible=False",
    ),
    (
        "aws:rds/instance:Instance",
        {"storageEncrypted": False, "kmsKeyId": "k"},
        "encryption: .*storage_encrypted=True",
    ),
    (
        "aws:ecs/service:Service",
        {"networkConfiguration": {"assignPublicIp": True}},
        "public: .*assign_public_ip=False",
    ),
    ("aws:ec2/subnet:Subnet", {"mapPublicIpOnLaunch": True}, "public: .*map_public_ip_on_launch"),
    (
        "aws:ec2/launchTemplate:LaunchTemplate",
        {
            "networkInterfaces": [{"associatePublicIpAddress": "true"}],
            "blockDeviceMappings": [{"ebs": {"encrypted": "true"}}],
        },
        "public: .*associate_public_ip_address",
    ),
    (
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
        {"cidrIpv4": "0.0.0.0/0"},
        "public: .*lets in everybody",
    ),
    (
        "aws:ec2/securityGroup:SecurityGroup",
        {"ingress": [{"ipv6CidrBlocks": ["::/0"]}]},
        "public: .*lets in everybody",
    ),
    ("aws:sagemaker/model:Model", {}, "public: .*set vpc_config"),
    (
        "aws-native:sagemaker:EndpointConfig",
        {"kmsKeyId": "k", "productionVariants": [{"variantName": "v"}]},
        "public: .*set vpc_config",
    ),
    (
        "aws:kms/key:Key",
        {"policy": json.dumps({"Statement": [{"Effect": "Allow", "Principal": "*"}]})},
        "public: .*lets in anybody",
    ),
    ("aws:cloudwatch/logGroup:LogGroup", {}, "encryption: .*kmsKeyId is not set"),
    ("aws:sns/topic:Topic", {}, "encryption: .*kmsMasterKeyId is not set"),
    ("aws:secretsmanager/secret:Secret", {}, "encryption: .*kmsKeyId is not set"),
    ("aws-native:sagemaker:EndpointConfig", {}, "encryption: .*kmsKeyId is not set"),
    (
        "aws-native:sagemaker:EndpointConfig",
        {"kmsKeyId": "k", "asyncInferenceConfig": {"outputConfig": {"s3OutputPath": "s3://b/"}}},
        "encryption: .*results are not under a key",
    ),
    ("aws:lb/listener:Listener", {"protocol": "HTTP"}, "encryption: .*protocol='HTTPS'"),
    ("aws:ec2/launchTemplate:LaunchTemplate", {}, "encryption: .*as the image has them"),
    (
        "aws:ec2/launchTemplate:LaunchTemplate",
        {"blockDeviceMappings": [{"deviceName": "/dev/xvda", "ebs": {"encrypted": "false"}}]},
        "encryption: .*/dev/xvda is not encrypted",
    ),
    ("aws:ebs/volume:Volume", {}, "encryption: .*encrypted=True"),
    ("aws:ecr/repository:Repository", {}, "encryption: .*under a KMS key"),
    (
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        {"policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"},
        "wildcard: .*write the rights out",
    ),
    (
        "aws:iam/role:Role",
        {"assumeRolePolicy": json.dumps({"Statement": {"Principal": {"AWS": "*"}}})},
        "wildcard: .*anybody may take it",
    ),
]


@pytest.mark.parametrize(("kind", "inputs", "expected"), INPUTS)
def test_a_resource_that_breaks_a_rail_is_named_with_the_remedy(
    kind: str, inputs: dict[str, Any], expected: str
) -> None:
    (finding,) = GuardRails().findings([Declared(kind, "it", inputs)])
    assert finding.resource == f"{kind} 'it'"
    assert re.match(expected, str(finding)), str(finding)


RIGHTS: list[tuple[Any, Any, str | None]] = [
    ("s3:GetObject", "arn:aws:s3:::artifacts/*", None),
    ("sagemaker:InvokeEndpoint", "arn:aws:sagemaker:eu-1:1:endpoint/tidegate-*", None),
    ("ecr:GetAuthorizationToken", "*", None),
    ("cloudwatch:PutMetricData", "*", "allows cloudwatch:PutMetricData on [*]; name"),
    ("s3:*", "arn:aws:s3:::artifacts/*", "allows the action s3:[*]; name the actions"),
    ("s3:Get*", ["arn:aws:s3:::artifacts/*"], "allows the action s3:Get[*]"),
    (["s3:GetObject"], "*", "allows s3:GetObject on [*]; name the resources"),
    ("s3:GetObject", "arn:aws:s3:::*", "on arn:aws:s3:::[*]; name the resources"),
    ("s3:GetObject", "arn:aws:s3:::*/*", "on arn:aws:s3:::[*]/[*]; name the resources"),
    ("sagemaker:InvokeEndpoint", "arn:aws:sagemaker:eu-1:1:endpoint/*", "name the resources"),
    ("logs:PutLogEvents", "arn:aws:logs:eu-1:1:log-group:*", "name the resources"),
    ("logs:PutLogEvents", "arn:aws:logs:eu-1:1:log-group:/tidegate/*:*", None),
]


@pytest.mark.parametrize(("action", "resource", "expected"), RIGHTS)
def test_a_right_is_for_a_name_or_a_prefix_of_names(
    action: Any, resource: Any, expected: str | None
) -> None:
    statement = {"Effect": "Allow", "Action": action, "Resource": resource}
    document = json.dumps({"Statement": [statement]})
    found = said([Declared("aws:iam/rolePolicy:RolePolicy", "r", {"policy": document})])
    assert len(found) == (0 if expected is None else 1), found
    if expected:
        assert re.search(expected, found[0])


@pytest.mark.parametrize(
    ("key", "passes"), [("cloudwatch:namespace", True), ("aws:SourceVpc", False)]
)
def test_what_has_no_name_yet_is_bound_by_the_condition_for_it(key: str, passes: bool) -> None:
    statement = {
        "Effect": "Allow",
        "Action": "cloudwatch:PutMetricData",
        "Resource": "*",
        "Condition": {"StringLike": {key: "x"}},
    }
    document = json.dumps({"Statement": [statement]})
    found = said([Declared("aws:iam/rolePolicy:RolePolicy", "r", {"policy": document})])
    assert (found == []) is passes


def test_a_right_to_all_but_something_is_refused() -> None:
    document = json.dumps(
        {"Statement": [{"Effect": "Allow", "NotAction": "iam:*", "Resource": "arn:aws:s3:::a/*"}]}
    )
    (found,) = said([Declared("aws:iam/rolePolicy:RolePolicy", "r", {"policy": document})])
    assert "allows all but something" in found


def test_a_denial_may_be_wide() -> None:
    document = json.dumps({"Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]})
    assert said([Declared("aws:iam/rolePolicy:RolePolicy", "r", {"policy": document})]) == []


def test_a_document_that_is_not_known_yet_is_not_judged() -> None:
    assert said([Declared("aws:iam/rolePolicy:RolePolicy", "r", {"policy": UNKNOWN})]) == []


def whole_bucket() -> list[Declared]:
    """A bucket with everything that the rails want of one."""
    refers = {"bucket": frozenset({BUCKET.key})}
    blocks = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    kms = {"applyServerSideEncryptionByDefault": {"sseAlgorithm": "aws:kms"}}
    keys = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
    return [
        BUCKET,
        Declared(BLOCK, "b", dict.fromkeys(blocks, True), refers),
        Declared(keys, "b", {"rules": [kms]}, refers),
        Declared(
            "aws:s3/bucketPolicy:BucketPolicy",
            "b",
            {"policy": json.dumps({"Statement": [deny]})},
            refers,
        ),
    ]


def test_a_whole_bucket_passes() -> None:
    assert said(whole_bucket()) == []


@pytest.mark.parametrize(
    ("left_out", "expected"),
    [
        (1, "public access is not blocked"),
        (2, "objects are not under a KMS key"),
        (3, "asked without TLS"),
    ],
)
def test_a_bucket_that_lacks_a_part_is_named(left_out: int, expected: str) -> None:
    parts = whole_bucket()
    (found,) = said([part for at, part in enumerate(parts) if at != left_out])
    assert "Bucket 'b'" in found
    assert expected in found


def test_half_a_block_of_public_access_is_none() -> None:
    parts = whole_bucket()
    parts[1] = replace(parts[1], inputs={**parts[1].inputs, "blockPublicPolicy": False})
    (found,) = said(parts)
    assert "public access is not blocked" in found


def test_parts_of_another_bucket_do_not_count() -> None:
    other = Declared("aws:s3/bucket:Bucket", "other")
    found = said([*whole_bucket(), other])
    assert len(found) == 3
    assert all("'other'" in each for each in found)


def asleep(mode: Mode) -> Iterator[tuple[str, list[Declared]]]:
    """Endpoints from zero that have lost something of what wakes them."""
    resources = endpoint_resources(mode)
    alarm, step = (
        the(resources, ALARM, "tidegate-smol-wakes"),
        the(resources, POLICY, "tidegate-smol-wakes"),
    )

    def changed(of: Declared, **inputs: Any) -> list[Declared]:
        new = replace(of, inputs={**of.inputs, **inputs})
        return [new if each is of else each for each in resources]

    yield "no alarm", [each for each in resources if each is not alarm]
    yield "no step policy", [each for each in resources if each is not step]
    yield "another metric", changed(alarm, metricName="Invocations")
    yield "another name", changed(alarm, dimensions={"EndpointName": "other"})
    yield "switched off", changed(alarm, actionsEnabled=False)
    yield "another resource", changed(step, resourceId="inference-component/other")
    yield "another dimension", changed(step, scalableDimension="ecs:service:DesiredCount")
    down = {"stepAdjustments": [{"scalingAdjustment": -1}]}
    yield "steps down", changed(step, stepScalingPolicyConfiguration=down)
    deaf = replace(alarm, refers={})
    yield "calls nobody", [deaf if each is alarm else each for each in resources]


@pytest.mark.parametrize("mode", [Mode.SERVERLESS, Mode.ASYNC])
def test_without_any_link_of_the_chain_nothing_wakes_an_endpoint_from_zero(mode: Mode) -> None:
    target = the(endpoint_resources(mode), TARGET)
    for what, resources in asleep(mode):
        found = said(resources)
        assert len(found) == 1, f"{mode}, {what}: {found}"
        assert f"nothing wakes {target.inputs['resourceId']} from zero" in found[0], what


def test_a_component_on_an_empty_endpoint_that_nobody_scales_sleeps_for_ever() -> None:
    resources = endpoint_resources(Mode.SERVERLESS, scaled_by="tidegate")
    component = the(resources, "aws-native:sagemaker:InferenceComponent")
    orphan = replace(component, inputs={**component.inputs, "tags": []})
    (found,) = said([orphan if each is component else each for each in resources])
    assert "nothing wakes inference-component/tidegate-smol from zero" in found


def test_a_target_that_never_reaches_zero_needs_no_alarm() -> None:
    resources = endpoint_resources(Mode.REALTIME)
    assert said([each for each in resources if each.type != ALARM]) == []


@pytest.mark.parametrize(
    ("mode", "instances"),
    [(Mode.REALTIME, 1), (Mode.SERVERLESS, 0), (Mode.ASYNC, 0), (Mode.BATCH, 0)],
)
def test_only_realtime_has_a_gpu_at_rest(mode: Mode, instances: int) -> None:
    (running,) = at_rest(endpoint_resources(mode))
    assert running.count == instances
    assert running.monthly_usd({}) == (None if instances else 0.0)
    assert running.monthly_usd(GPU_PRICES) == 730.0 * instances


def test_a_queue_without_a_target_keeps_the_instances_it_begins_with() -> None:
    resources = [each for each in endpoint_resources(Mode.ASYNC) if each.type != TARGET]
    assert [running.count for running in at_rest(resources)] == [1]


def test_a_limit_names_the_sum_that_is_over_it() -> None:
    resources = endpoint_resources(Mode.REALTIME, min_copies=2, max_copies=2)
    (found,) = said(resources, max_monthly_usd=1000, prices=GPU_PRICES)
    assert "costs 1460.00 USD a month, over the limit of 1000.00" in found


def test_a_limit_is_not_kept_by_not_knowing_the_price() -> None:
    (found,) = said(endpoint_resources(Mode.REALTIME), max_monthly_usd=1000)
    assert "no price is known for ml.g6.xlarge" in found


def test_a_program_that_breaks_a_rail_ends_before_anything_is_made() -> None:
    def program() -> None:
        with guard():
            lb.LoadBalancer("open", internal=False)

    with pytest.raises(GuardRailsBroken) as broken:
        declared_by(program)
    (finding,) = broken.value.findings
    assert isinstance(finding, Finding)
    assert "set internal=True" in str(broken.value)


@pytest.mark.parametrize("mode", Mode)
def test_at_a_preview_the_guard_judges_what_is_known(mode: Mode) -> None:
    args = endpoint_args(mode)
    resources = declared_by(lambda: InferenceEndpoint("smol", args), preview=True)
    assert said(resources) == []
    woken = [each for each in resources if each.name.endswith("-wakes") and each.type == ALARM]
    assert all(each.inputs["alarmActions"] == [UNKNOWN] for each in woken)
    for alarm in woken:
        (found,) = said([each for each in resources if each is not alarm])
        assert "nothing wakes" in found


def test_at_a_preview_a_program_that_breaks_a_rail_ends() -> None:
    def program() -> None:
        with guard():
            balancer = lb.LoadBalancer("open", internal=False)
            lb.Listener(
                "plain", load_balancer_arn=balancer.arn, protocol="HTTP", default_actions=[]
            )

    with pytest.raises(GuardRailsBroken) as broken:
        declared_by(program, preview=True)
    assert [finding.rail for finding in broken.value.findings] == ["encryption", "public"]


def test_a_platform_at_a_preview_keeps_the_guard_rails() -> None:
    def program() -> None:
        with guard():
            Platform("tidegate", platform_args())

    assert len(declared_by(program, preview=True)) > 90


def test_a_program_may_be_public_on_purpose() -> None:
    def program() -> None:
        with guard(GuardRails(public=True)):
            lb.LoadBalancer("open", internal=False)

    assert len(declared_by(program)) == 1


def test_the_guard_sees_only_its_block() -> None:
    def program() -> None:
        with guard():
            pass
        lb.LoadBalancer("later", internal=False)

    assert len(declared_by(program)) == 1


def test_what_is_unknown_is_written_as_pulumi_writes_it() -> None:
    assert rpc.UNKNOWN == UNKNOWN


def test_a_secret_never_reaches_the_guard_rails() -> None:
    (found,) = declared_by(lambda: lb.LoadBalancer("s", name=pulumi.Output.secret("hidden")))
    assert found.inputs["name"] == "[secret]"
