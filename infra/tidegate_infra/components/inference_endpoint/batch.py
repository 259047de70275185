"""Jobs on GPU spot instances: none at rest, and one that is reclaimed runs again."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi_aws import batch, cloudwatch, ec2

from tidegate.offers import bundled_hardware
from tidegate_infra.components.inference_endpoint.args import InferenceEndpointArgs
from tidegate_infra.components.inference_endpoint.batch_role import instance_profile
from tidegate_infra.components.inference_endpoint.fields import VOLUME_GB
from tidegate_infra.components.logs import log_group

LAUNCH_DEVICE = "/dev/xvda"
"""The root of ECS's Amazon Linux 2023 images."""

COMMAND = ("batch", "Ref::input", "Ref::output")
"""What the runtime image runs for one job; Batch puts the job's parameters in."""
TRY_AGAIN = "1"
"""The image's exit code for what another run may do, such as a store that was away."""


class BatchEndpoint(pulumi.ComponentResource):
    """A queue of AWS Batch, its instances, and the definition of a job that runs the runtime.

    A job is submitted with the parameters `input` and `output`.
    """

    job_queue_arn: pulumi.Output[str]
    job_definition_arn: pulumi.Output[str]

    def __init__(
        self, name: str, args: InferenceEndpointArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("tidegate:aws:BatchEndpoint", name, None, opts)
        inner = pulumi.ResourceOptions(parent=self)
        logs = log_group(name, f"/tidegate/batch/{args.name}", args.kms_key_arn, inner)
        queue = _queue(name, args, _instances(name, args, inner), inner)
        definition = _definition(name, args, logs, inner)
        if args.alarm_topic_arn is not None:
            _tell_of_failures(name, queue, args.alarm_topic_arn, inner)
        self.job_queue_arn, self.job_definition_arn = queue.arn, definition.arn
        self.register_outputs(
            {"jobQueueArn": self.job_queue_arn, "jobDefinitionArn": self.job_definition_arn}
        )


def _instances(
    name: str, args: InferenceEndpointArgs, opts: pulumi.ResourceOptions
) -> batch.ComputeEnvironment:
    """Spot instances where there is most room for them; as many as jobs need, and none at rest."""
    template = _launch_template(name, args, opts)
    image = "ECS_AL2023_NVIDIA" if args.accelerators else "ECS_AL2023"
    return batch.ComputeEnvironment(
        name,
        type="MANAGED",
        compute_resources=batch.ComputeEnvironmentComputeResourcesArgs(
            type="SPOT",
            allocation_strategy="SPOT_PRICE_CAPACITY_OPTIMIZED",
            min_vcpus=0,
            max_vcpus=args.max_copies * _vcpus(args),
            instance_types=[args.instance_type],
            instance_role=instance_profile(name, args, opts).arn,
            subnets=args.subnet_ids,
            security_group_ids=args.security_group_ids,
            ec2_configurations=[
                batch.ComputeEnvironmentComputeResourcesEc2ConfigurationArgs(image_type=image)
            ],
            launch_template=batch.ComputeEnvironmentComputeResourcesLaunchTemplateArgs(
                launch_template_id=template.id,
                version=template.latest_version.apply(str),
            ),
            tags=args.tags,
        ),
        tags=args.tags,
        opts=opts,
    )


def _vcpus(args: InferenceEndpointArgs) -> int:
    """Of one instance, as Batch counts; of a job where the catalogue does not know the type."""
    known = bundled_hardware().get(args.instance_type)
    return known.vcpus if known else args.cpu


def _launch_template(
    name: str, args: InferenceEndpointArgs, opts: pulumi.ResourceOptions
) -> ec2.LaunchTemplate:
    """An encrypted disk, and no way from a container to the instance's own rights."""
    return ec2.LaunchTemplate(
        name,
        block_device_mappings=[
            ec2.LaunchTemplateBlockDeviceMappingArgs(
                device_name=LAUNCH_DEVICE,
                ebs=ec2.LaunchTemplateBlockDeviceMappingEbsArgs(
                    encrypted="true",
                    kms_key_id=args.kms_key_arn,
                    volume_size=args.volume_gb or VOLUME_GB,
                    volume_type="gp3",
                    delete_on_termination="true",
                ),
            )
        ],
        metadata_options=ec2.LaunchTemplateMetadataOptionsArgs(
            http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
        ),
        tags=args.tags,
        opts=opts,
    )


def _queue(
    name: str,
    args: InferenceEndpointArgs,
    instances: batch.ComputeEnvironment,
    opts: pulumi.ResourceOptions,
) -> batch.JobQueue:
    return batch.JobQueue(
        name,
        name=args.name,
        state="ENABLED",
        priority=1,
        compute_environment_orders=[
            batch.JobQueueComputeEnvironmentOrderArgs(order=1, compute_environment=instances.arn)
        ],
        tags=args.tags,
        opts=opts,
    )


def _definition(
    name: str,
    args: InferenceEndpointArgs,
    logs: cloudwatch.LogGroup,
    opts: pulumi.ResourceOptions,
) -> batch.JobDefinition:
    """A job whose host was reclaimed ("Host EC2 …") runs again, and one that asks for it."""
    return batch.JobDefinition(
        name,
        name=args.name,
        type="container",
        platform_capabilities=["EC2"],
        container_properties=pulumi.Output.json_dumps(_container(args, logs)),
        parameters={"input": args.payload("input/"), "output": args.payload("output/")},
        retry_strategy=batch.JobDefinitionRetryStrategyArgs(
            attempts=args.attempts,
            evaluate_on_exits=[
                batch.JobDefinitionRetryStrategyEvaluateOnExitArgs(
                    on_status_reason="Host EC2*", action="RETRY"
                ),
                batch.JobDefinitionRetryStrategyEvaluateOnExitArgs(
                    on_exit_code=TRY_AGAIN, action="RETRY"
                ),
                batch.JobDefinitionRetryStrategyEvaluateOnExitArgs(on_reason="*", action="EXIT"),
            ],
        ),
        propagate_tags=True,
        tags=args.tags,
        opts=opts,
    )


def _container(args: InferenceEndpointArgs, logs: cloudwatch.LogGroup) -> dict[str, Any]:
    """The container as Batch's API spells it."""
    requirements = [
        {"type": "VCPU", "value": str(args.cpu)},
        {"type": "MEMORY", "value": str(args.memory_mb)},
    ]
    if args.accelerators:
        requirements.append({"type": "GPU", "value": str(args.accelerators)})
    environment = {"TIDEGATE_SOURCE": args.artifact_url, **args.settings}
    return {
        "image": args.image,
        "command": list(COMMAND),
        "jobRoleArn": args.execution_role_arn,
        "resourceRequirements": requirements,
        "environment": [{"name": key, "value": environment[key]} for key in sorted(environment)],
        "privileged": False,
        "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": logs.name}},
    }


def _tell_of_failures(
    name: str,
    queue: batch.JobQueue,
    topic_arn: pulumi.Input[str],
    opts: pulumi.ResourceOptions,
) -> None:
    """A job that fails for good is told; Batch has events for it and no metric."""
    pattern = {
        "source": ["aws.batch"],
        "detail-type": ["Batch Job State Change"],
        "detail": {"status": ["FAILED"], "jobQueue": [queue.arn]},
    }
    rule = cloudwatch.EventRule(
        f"{name}-failed", event_pattern=pulumi.Output.json_dumps(pattern), opts=opts
    )
    cloudwatch.EventTarget(f"{name}-failed", rule=rule.name, arn=topic_arn, opts=opts)
