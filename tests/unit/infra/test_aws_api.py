"""What is declared is what AWS takes: names, choices, bounds and patterns of its own models.

Held against botocore's description of each request, which the provider's classes know nothing of.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.unit.infra.arguments import IMAGE, endpoint_args, platform_args
from tests.unit.infra.aws_api import faults
from tests.unit.infra.aws_requests import APIS, AUTOMATIC

from tidegate.spec import Mode
from tidegate_infra.components.inference_endpoint.endpoint import InferenceEndpoint
from tidegate_infra.components.inference_endpoint.limits import LONGEST_NAME, LONGEST_OF_BATCH
from tidegate_infra.components.platform.platform import Platform
from tidegate_infra.graph.offline import declared_by
from tidegate_infra.policy.declared import Declared

MOST_COPIES = {"max_copies": 1000, "max_concurrency": 1000, "idle_s": 86_400}
LONGEST_WAITS = {"startup_timeout_s": 3600, "download_timeout_s": 3600, "attempts": 10}
TAGGED = {"tags": {"team": "search and ranking", "cost-center": "42"}}
ON_CPUS: dict[str, Any] = {"accelerators": 0, "volume_gb": 512, "memory_mb": 128, "cpu": 1}


def judged(resources: list[Declared]) -> list[str]:
    return [fault for each in resources if each.type in APIS for fault in faults(each)]


def declared(mode: Mode, **changes: Any) -> list[Declared]:
    args = endpoint_args(mode, **changes)
    return declared_by(lambda: InferenceEndpoint("it", args))


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("extreme", ["least", "most"])
def test_an_endpoint_of_the_longest_name_is_one_that_aws_takes(mode: Mode, extreme: str) -> None:
    longest = LONGEST_OF_BATCH if mode is Mode.BATCH else LONGEST_NAME
    said: dict[str, Any] = {"name": "n" * longest}
    if extreme == "least":
        said |= {**ON_CPUS, "instance_type": "m5.xlarge" if mode is Mode.BATCH else "ml.m5.xlarge"}
    else:
        said |= {**MOST_COPIES, **LONGEST_WAITS, **TAGGED}
        said |= {"inference_ami": "al2023-ami-sagemaker-inference-gpu-4-1"}
        said |= {"environment": {"TIDEGATE_TASK": "x" * 1024}}
    assert judged(declared(mode, **said)) == []


@pytest.mark.parametrize("mode", [Mode.REALTIME, Mode.SERVERLESS])
def test_copies_that_a_control_plane_scales_are_what_aws_takes_too(mode: Mode) -> None:
    assert judged(declared(mode, scaled_by="tidegate")) == []


PLATFORMS: list[dict[str, Any]] = [
    {},
    {"name": "a-platform-of-twenty", **TAGGED},
    {"internet": True, "internal": False, "allowed_cidrs": ["0.0.0.0/0"], "control_planes": 0},
    {"spool_gb": 200, "database_gb": 6553, "backup_days": 35, "monthly_budget_usd": 1},
    {"spool_gb": 21, "database_gb": 20, "backup_days": 1, "protect": False},
]


@pytest.mark.parametrize("said", PLATFORMS)
def test_a_platform_is_one_that_aws_takes(said: dict[str, Any]) -> None:
    args = platform_args(**said)
    resources = declared_by(lambda: Platform("it", args))
    assert judged(resources) == []
    if not said:
        assert {each.type for each in resources} & APIS.keys() > {"aws:ecs/service:Service"}


MODEL = {"executionRoleArn": "arn:aws:iam::123456789012:role/it"}
BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("aws:sagemaker/model:Model", {**MODEL, "name": "a_b"}, "does not match"),
    (
        "aws:sagemaker/model:Model",
        {"executionRoleArn": "an:arn" * 9},
        "executionRoleArn: .* not match",
    ),
    ("aws:sagemaker/model:Model", {"executionRole": "it"}, "no such member"),
    ("aws:sagemaker/model:Model", {"primaryContainer": {"imag": IMAGE}}, "imag: .* no such member"),
    ("aws:sagemaker/model:Model", {"vpcConfig": {"subnets": ["a"]}}, "lacks SecurityGroupIds"),
    ("aws:sagemaker/model:Model", {"tags": {"team": "a&b"}}, "tags.value: 'a&b' does not match"),
    (
        "aws-native:sagemaker:EndpointConfig",
        {"productionVariants": [{"variantName": "v", "inferenceAmiVersion": "newest"}]},
        "'newest' is none of",
    ),
    (
        "aws-native:sagemaker:InferenceComponent",
        {"runtimeConfig": {"copyCount": 0.5}},
        "no whole number",
    ),
    ("aws:appautoscaling/policy:Policy", {"policyType": "Steps"}, "'Steps' is none of"),
    ("aws:cloudwatch/metricAlarm:MetricAlarm", {"period": 0}, "period: 0  is not between 1"),
    ("aws:cloudwatch/logGroup:LogGroup", {"name": "/a b"}, "does not match"),
    (
        "aws:s3/bucketVersioning:BucketVersioning",
        {"versioningConfiguration": {"status": "On"}},
        "'On' is none of",
    ),
]


@pytest.mark.parametrize(("kind", "inputs", "expected"), BROKEN)
def test_what_aws_would_refuse_is_found(kind: str, inputs: dict[str, Any], expected: str) -> None:
    (found,) = faults(Declared(kind, "it", inputs))
    assert re.search(expected, found), found


@pytest.mark.parametrize("kind", ["aws:iam/role:Role", "aws:sagemaker/model:Model"])
def test_a_name_that_pulumi_makes_is_measured_with_what_it_adds(kind: str) -> None:
    longest = {"aws:iam/role:Role": 64, "aws:sagemaker/model:Model": 63}[kind] - len(AUTOMATIC)
    assert not [*faults(Declared(kind, "n" * longest))]
    assert [*faults(Declared(kind, "n" * (longest + 1)))]
