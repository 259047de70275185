"""What each mode declares: the resources, and every property that matters."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from tests.unit.infra.arguments import IMAGE, KEY, ROLE, TOPIC, endpoint_args
from tests.unit.infra.declarations import endpoint_resources, the

from tidegate.spec import Mode
from tidegate_infra.components.inference_endpoint.endpoint import InferenceEndpoint
from tidegate_infra.graph.offline import declared_by
from tidegate_infra.policy.declared import Declared

MODEL = "aws:sagemaker/model:Model"
CONFIG = "aws-native:sagemaker:EndpointConfig"
ENDPOINT = "aws:sagemaker/endpoint:Endpoint"
COMPONENT = "aws-native:sagemaker:InferenceComponent"
TARGET = "aws:appautoscaling/target:Target"
POLICY = "aws:appautoscaling/policy:Policy"
ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
TOPICS = "aws:sns/topic:Topic"

LOGS = "aws:cloudwatch/logGroup:LogGroup"

HOSTING = {MODEL: 1, CONFIG: 1, ENDPOINT: 1}
HOSTED_COPIES = HOSTING | {COMPONENT: 1, LOGS: 2}
EXPECTED: dict[Mode, dict[str, int]] = {
    Mode.REALTIME: HOSTED_COPIES | {TARGET: 1, POLICY: 1, ALARM: 1},
    Mode.SERVERLESS: HOSTED_COPIES | {TARGET: 1, POLICY: 2, ALARM: 2},
    Mode.ASYNC: HOSTING | {LOGS: 1, TOPICS: 2, TARGET: 1, POLICY: 2, ALARM: 2},
    Mode.BATCH: {
        "aws:batch/computeEnvironment:ComputeEnvironment": 1,
        "aws:batch/jobQueue:JobQueue": 1,
        "aws:batch/jobDefinition:JobDefinition": 1,
        "aws:ec2/launchTemplate:LaunchTemplate": 1,
        "aws:iam/role:Role": 1,
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment": 1,
        "aws:iam/instanceProfile:InstanceProfile": 1,
        LOGS: 1,
        "aws:cloudwatch/eventRule:EventRule": 1,
        "aws:cloudwatch/eventTarget:EventTarget": 1,
    },
}
COPIES = (Mode.REALTIME, Mode.SERVERLESS)
ON_SAGEMAKER = (*COPIES, Mode.ASYNC)
FROM_ZERO = (Mode.SERVERLESS, Mode.ASYNC)


def variant(mode: Mode, **changes: Any) -> dict[str, Any]:
    """The production variant of an endpoint."""
    (found,) = the(endpoint_resources(mode, **changes), CONFIG).inputs["productionVariants"]
    return dict(found)


@pytest.mark.parametrize("mode", Mode)
def test_a_mode_declares_exactly_its_resources(mode: Mode) -> None:
    assert Counter(each.type for each in endpoint_resources(mode)) == EXPECTED[mode]


@pytest.mark.parametrize("mode", ON_SAGEMAKER)
def test_a_model_is_isolated_private_and_reads_its_artifact_as_it_lies(mode: Mode) -> None:
    model = the(endpoint_resources(mode), MODEL).inputs
    (source,) = model["primaryContainer"]["modelDataSource"]["s3DataSources"]
    assert source == {
        "s3Uri": "s3://artifacts/smol/",
        "s3DataType": "S3Prefix",
        "compressionType": "None",
    }
    assert model["enableNetworkIsolation"] is True
    assert model["executionRoleArn"] == ROLE
    assert model["primaryContainer"]["image"] == IMAGE
    network = {"subnets": ["subnet-a", "subnet-b"], "securityGroupIds": ["sg-1"]}
    assert model["vpcConfig"] == network


@pytest.mark.parametrize("mode", ON_SAGEMAKER)
def test_a_model_has_what_it_reads_beside_its_artifact_brought_too(mode: Mode) -> None:
    args = endpoint_args(mode, additional_urls={"heads": "s3://bucket/heads/"})
    declared = tuple(declared_by(lambda: InferenceEndpoint("smol", args)))
    (source,) = the(declared, MODEL).inputs["primaryContainer"]["additionalModelDataSources"]
    assert source == {
        "channelName": "heads",
        "s3DataSources": [
            {"s3Uri": "s3://bucket/heads/", "s3DataType": "S3Prefix", "compressionType": "None"}
        ],
    }
    alone = the(endpoint_resources(mode), MODEL).inputs["primaryContainer"]
    assert "additionalModelDataSources" not in alone


@pytest.mark.parametrize("mode", ON_SAGEMAKER)
def test_a_container_takes_as_many_sequences_as_it_is_sent_requests(mode: Mode) -> None:
    said = {"TIDEGATE_MAX_SEQUENCES": "4"}
    assert endpoint_args(mode, environment=said).settings == said
    container = the(endpoint_resources(mode), MODEL).inputs["primaryContainer"]
    assert container["environment"] == {"TIDEGATE_MAX_SEQUENCES": "8"}


@pytest.mark.parametrize("mode", COPIES)
def test_where_copies_are_placed_is_private_encrypted_and_isolated(mode: Mode) -> None:
    config = the(endpoint_resources(mode), CONFIG).inputs
    assert config["vpcConfig"]["subnets"] == ["subnet-a", "subnet-b"]
    assert "kmsKeyId" not in config, "SageMaker takes no key for a disk of the instance's own"
    assert config["enableNetworkIsolation"] is True
    assert config["executionRoleArn"] == ROLE


@pytest.mark.parametrize(
    ("mode", "least", "most"), [(Mode.REALTIME, 1, 4), (Mode.SERVERLESS, 0, 4)]
)
def test_instances_follow_the_copies_from_the_least(mode: Mode, least: int, most: int) -> None:
    found = variant(mode)
    assert found["managedInstanceScaling"] == {
        "status": "ENABLED",
        "minInstanceCount": least,
        "maxInstanceCount": most,
    }
    assert found["routingConfig"] == {"routingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    assert found["initialInstanceCount"] == 1
    assert "modelName" not in found


@pytest.mark.parametrize("mode", ON_SAGEMAKER)
def test_an_instance_gives_a_model_the_time_and_the_disk_that_were_asked(mode: Mode) -> None:
    found = variant(mode, startup_timeout_s=1200, download_timeout_s=2400, inference_ami="an-ami")
    assert found["containerStartupHealthCheckTimeoutInSeconds"] == 1200
    assert found["modelDataDownloadTimeoutInSeconds"] == 2400
    assert found["inferenceAmiVersion"] == "an-ami"
    assert found["instanceType"] == "ml.g6.xlarge"


@pytest.mark.parametrize("mode", ON_SAGEMAKER)
def test_a_disk_that_is_attached_has_its_size_and_is_under_the_key(mode: Mode) -> None:
    on_cpus = {"instance_type": "ml.m5.xlarge", "accelerators": 0}
    for said, size in ({}, 64), ({"volume_gb": 100}, 100):
        assert variant(mode, **on_cpus, **said)["volumeSizeInGb"] == size
    assert the(endpoint_resources(mode, **on_cpus), CONFIG).inputs["kmsKeyId"] == KEY


@pytest.mark.parametrize("mode", ON_SAGEMAKER)
def test_a_type_with_a_disk_of_its_own_is_given_none(mode: Mode) -> None:
    assert "volumeSizeInGb" not in variant(mode)
    assert "kmsKeyId" not in the(endpoint_resources(mode), CONFIG).inputs


@pytest.mark.parametrize("mode", COPIES)
def test_a_component_says_what_one_copy_needs_and_begins_with_one(mode: Mode) -> None:
    resources = endpoint_resources(mode)
    component = the(resources, COMPONENT)
    specification = component.inputs["specification"]
    assert specification["computeResourceRequirements"] == {
        "minMemoryRequiredInMb": 12_288,
        "numberOfCpuCoresRequired": 2,
        "numberOfAcceleratorDevicesRequired": 1,
    }
    assert component.refers_to(the(resources, MODEL), "specification")
    assert component.refers_to(the(resources, ENDPOINT), "endpointName")
    assert component.inputs["inferenceComponentName"] == "tidegate-smol"
    assert component.inputs["runtimeConfig"] == {"copyCount": 1}
    assert component.inputs["variantName"] == variant(mode)["variantName"]


def test_a_copy_on_the_cpu_asks_for_no_accelerator() -> None:
    resources = endpoint_resources(Mode.SERVERLESS, accelerators=0, instance_type="ml.c7i.2xlarge")
    needs = the(resources, COMPONENT).inputs["specification"]["computeResourceRequirements"]
    assert "numberOfAcceleratorDevicesRequired" not in needs


@pytest.mark.parametrize(("mode", "least"), [(Mode.REALTIME, 1), (Mode.SERVERLESS, 0)])
def test_copies_follow_concurrent_requests(mode: Mode, least: int) -> None:
    resources = endpoint_resources(mode, idle_s=600)
    target = the(resources, TARGET)
    assert target.inputs == {
        "serviceNamespace": "sagemaker",
        "resourceId": "inference-component/tidegate-smol",
        "scalableDimension": "sagemaker:inference-component:DesiredCopyCount",
        "minCapacity": least,
        "maxCapacity": 4,
    }
    policy = the(resources, POLICY, "tidegate-smol-tracks")
    assert _scales(policy, target)
    assert policy.inputs["policyType"] == "TargetTrackingScaling"
    assert policy.inputs["targetTrackingScalingPolicyConfiguration"] == {
        "targetValue": pytest.approx(0.7 * 8),
        "predefinedMetricSpecification": {
            "predefinedMetricType": (
                "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution"
            )
        },
        "scaleInCooldown": 600,
        "scaleOutCooldown": 60,
    }


def test_instances_of_a_queue_follow_its_backlog_from_zero() -> None:
    resources = endpoint_resources(Mode.ASYNC)
    target = the(resources, TARGET)
    assert target.inputs == {
        "serviceNamespace": "sagemaker",
        "resourceId": f"endpoint/tidegate-smol/variant/{variant(Mode.ASYNC)['variantName']}",
        "scalableDimension": "sagemaker:variant:DesiredInstanceCount",
        "minCapacity": 0,
        "maxCapacity": 3,
    }
    policy = the(resources, POLICY, "tidegate-smol-tracks")
    assert _scales(policy, target)
    followed = policy.inputs["targetTrackingScalingPolicyConfiguration"]
    assert followed["targetValue"] == 8
    assert followed["customizedMetricSpecification"] == {
        "namespace": "AWS/SageMaker",
        "metricName": "ApproximateBacklogSizePerInstance",
        "statistic": "Average",
        "dimensions": [{"name": "EndpointName", "value": "tidegate-smol"}],
    }


@pytest.mark.parametrize(
    ("mode", "metric", "statistic", "dimension"),
    [
        (Mode.SERVERLESS, "NoCapacityInvocationFailures", "Sum", "InferenceComponentName"),
        (Mode.ASYNC, "HasBacklogWithoutCapacity", "Maximum", "EndpointName"),
    ],
)
def test_the_first_minute_with_work_and_no_capacity_starts_one(
    mode: Mode, metric: str, statistic: str, dimension: str
) -> None:
    resources = endpoint_resources(mode)
    alarm, step = (
        the(resources, ALARM, "tidegate-smol-wakes"),
        the(resources, POLICY, "tidegate-smol-wakes"),
    )
    assert alarm.refers_to(step, "alarmActions")
    wakes_on = {
        "namespace": "AWS/SageMaker",
        "metricName": metric,
        "statistic": statistic,
        "dimensions": {dimension: "tidegate-smol"},
        "period": 60,
        "evaluationPeriods": 1,
        "datapointsToAlarm": 1,
        "threshold": 1,
        "comparisonOperator": "GreaterThanOrEqualToThreshold",
    }
    assert {key: alarm.inputs[key] for key in wakes_on} == wakes_on
    assert _scales(step, the(resources, TARGET))
    assert step.inputs["policyType"] == "StepScaling"
    assert step.inputs["stepScalingPolicyConfiguration"] == {
        "adjustmentType": "ChangeInCapacity",
        "metricAggregationType": "Maximum",
        "cooldown": 60,
        "stepAdjustments": [{"metricIntervalLowerBound": "0", "scalingAdjustment": 1}],
    }


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(Mode.REALTIME, COMPONENT), (Mode.SERVERLESS, COMPONENT), (Mode.ASYNC, ENDPOINT)],
)
def test_what_is_scaled_is_there_before_its_target(mode: Mode, kind: str) -> None:
    resources = endpoint_resources(mode)
    assert the(resources, TARGET).after == {the(resources, kind).key}


@pytest.mark.parametrize("mode", COPIES)
def test_a_control_plane_that_owns_the_copies_has_no_rival(mode: Mode) -> None:
    resources = endpoint_resources(mode, scaled_by="tidegate")
    kinds = {each.type for each in resources}
    assert not kinds & {TARGET, POLICY}
    tags = the(resources, COMPONENT).inputs["tags"]
    assert tags == [{"key": "tidegate:scaled-by", "value": "tidegate"}]
    assert [each.name for each in resources if each.type == ALARM] == ["tidegate-smol-fails"]


def test_a_queue_writes_results_and_errors_apart_and_tells_of_both() -> None:
    resources = endpoint_resources(Mode.ASYNC)
    queue = the(resources, CONFIG).inputs["asyncInferenceConfig"]
    assert queue["clientConfig"] == {"maxConcurrentInvocationsPerInstance": 8}
    output = queue["outputConfig"]
    assert output["s3OutputPath"] == "s3://payloads/async/results/"
    assert output["s3FailurePath"] == "s3://payloads/async/errors/"
    assert output["kmsKeyId"] == KEY
    told = output["notificationConfig"]
    assert told["successTopic"].endswith(":tidegate-smol-success")
    assert told["errorTopic"].endswith(":tidegate-smol-error")
    assert the(resources, CONFIG).refers_to(the(resources, MODEL), "productionVariants")
    assert {each.inputs["kmsMasterKeyId"] for each in resources if each.type == TOPICS} == {KEY}


@pytest.mark.parametrize(
    ("mode", "name", "metric"),
    [
        (Mode.REALTIME, "tidegate-smol-fails", "Invocation5XXErrors"),
        (Mode.SERVERLESS, "tidegate-smol-fails", "Invocation5XXErrors"),
        (Mode.ASYNC, "tidegate-smol-late", "ApproximateAgeOfOldestRequest"),
    ],
)
def test_trouble_is_told_where_there_is_a_topic_and_only_there(
    mode: Mode, name: str, metric: str
) -> None:
    alarm = the(endpoint_resources(mode), ALARM, name).inputs
    assert alarm["metricName"] == metric
    assert alarm["alarmActions"] == alarm["okActions"] == [TOPIC]
    silent = endpoint_resources(mode, alarm_topic_arn=None)
    assert name not in {each.name for each in silent if each.type == ALARM}


def test_a_batch_has_no_instance_at_rest_and_takes_spot() -> None:
    resources = endpoint_resources(Mode.BATCH, max_copies=3)
    instances = the(resources, "aws:batch/computeEnvironment:ComputeEnvironment")
    assert instances.inputs["type"] == "MANAGED"
    compute = instances.inputs["computeResources"]
    expected = {
        "type": "SPOT",
        "allocationStrategy": "SPOT_PRICE_CAPACITY_OPTIMIZED",
        "minVcpus": 0,
        "maxVcpus": 12,
        "instanceTypes": ["g6.xlarge"],
        "subnets": ["subnet-a", "subnet-b"],
        "securityGroupIds": ["sg-1"],
        "ec2Configurations": [{"imageType": "ECS_AL2023_NVIDIA"}],
    }
    assert {key: compute[key] for key in expected} == expected
    assert instances.refers_to(the(resources, "aws:iam/instanceProfile:InstanceProfile"))
    queue = the(resources, "aws:batch/jobQueue:JobQueue")
    assert queue.refers_to(instances, "computeEnvironmentOrders")


def test_a_batch_on_a_type_that_nobody_knows_counts_the_vcpus_of_its_jobs() -> None:
    resources = endpoint_resources(Mode.BATCH, max_copies=3, cpu=7, instance_type="g99.xlarge")
    instances = the(resources, "aws:batch/computeEnvironment:ComputeEnvironment")
    assert instances.inputs["computeResources"]["maxVcpus"] == 21


def test_a_job_runs_again_when_its_host_is_reclaimed_or_it_asks_for_it_and_else_not() -> None:
    job = the(endpoint_resources(Mode.BATCH), "aws:batch/jobDefinition:JobDefinition").inputs
    assert job["retryStrategy"] == {
        "attempts": 5,
        "evaluateOnExits": [
            {"onStatusReason": "Host EC2*", "action": "RETRY"},
            {"onExitCode": "1", "action": "RETRY"},
            {"onReason": "*", "action": "EXIT"},
        ],
    }


def test_a_job_runs_the_image_with_its_role_and_writes_a_log_of_its_own() -> None:
    job = the(endpoint_resources(Mode.BATCH), "aws:batch/jobDefinition:JobDefinition").inputs
    assert json.loads(job["containerProperties"]) == {
        "image": IMAGE,
        "command": ["batch", "Ref::input", "Ref::output"],
        "jobRoleArn": ROLE,
        "resourceRequirements": [
            {"type": "VCPU", "value": "2"},
            {"type": "MEMORY", "value": "12288"},
            {"type": "GPU", "value": "1"},
        ],
        "environment": [
            {"name": "TIDEGATE_MAX_SEQUENCES", "value": "8"},
            {"name": "TIDEGATE_SOURCE", "value": "s3://artifacts/smol/"},
        ],
        "privileged": False,
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {"awslogs-group": "/tidegate/batch/tidegate-smol"},
        },
    }
    assert job["parameters"] == {
        "input": "s3://payloads/batch/input/",
        "output": "s3://payloads/batch/output/",
    }


def test_an_instance_of_a_batch_has_an_encrypted_disk_and_keeps_its_rights_from_jobs() -> None:
    template = the(endpoint_resources(Mode.BATCH), "aws:ec2/launchTemplate:LaunchTemplate").inputs
    (disk,) = template["blockDeviceMappings"]
    assert (disk["ebs"]["encrypted"], disk["ebs"]["kmsKeyId"]) == ("true", KEY)
    assert template["metadataOptions"]["httpTokens"] == "required"
    assert template["metadataOptions"]["httpPutResponseHopLimit"] == 1


@pytest.mark.parametrize(
    ("mode", "paths"),
    [
        (
            Mode.SERVERLESS,
            {
                "/aws/sagemaker/Endpoints/tidegate-smol",
                "/aws/sagemaker/InferenceComponents/tidegate-smol",
            },
        ),
        (Mode.ASYNC, {"/aws/sagemaker/Endpoints/tidegate-smol"}),
        (Mode.BATCH, {"/tidegate/batch/tidegate-smol"}),
    ],
)
def test_logs_are_encrypted_and_forgotten(mode: Mode, paths: set[str]) -> None:
    groups = [each.inputs for each in endpoint_resources(mode) if each.type == LOGS]
    assert {group["name"] for group in groups} == paths
    assert {(group["kmsKeyId"], group["retentionInDays"]) for group in groups} == {(KEY, 30)}


def test_a_failed_job_is_told() -> None:
    resources = endpoint_resources(Mode.BATCH)
    rule = the(resources, "aws:cloudwatch/eventRule:EventRule")
    pattern = json.loads(rule.inputs["eventPattern"])
    assert pattern["detail"]["status"] == ["FAILED"]
    assert rule.refers_to(the(resources, "aws:batch/jobQueue:JobQueue"))
    assert the(resources, "aws:cloudwatch/eventTarget:EventTarget").inputs["arn"] == TOPIC


def _scales(policy: Declared, target: Declared) -> bool:
    """Whether a policy is bound to the target in all three keys."""
    keys = ("serviceNamespace", "resourceId", "scalableDimension")
    return all(policy.inputs[key] == target.inputs[key] for key in keys)
