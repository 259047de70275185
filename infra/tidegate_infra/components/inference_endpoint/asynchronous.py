"""A queue that AWS keeps: bodies and results in S3, notices on SNS, instances from zero.

An asynchronous endpoint takes no inference components, so what scales is the variant's instances.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_aws import appautoscaling, sagemaker, sns
from pulumi_aws_native import sagemaker as native_sagemaker

from tidegate_infra.components.inference_endpoint.alarms import LATE, tells
from tidegate_infra.components.inference_endpoint.args import InferenceEndpointArgs
from tidegate_infra.components.inference_endpoint.model import (
    native_tags,
    sagemaker_endpoint,
    sagemaker_model,
)
from tidegate_infra.components.inference_endpoint.scaling import (
    NAMESPACE,
    SCALE_OUT_COOLDOWN_S,
    Scalable,
    Wake,
    scalable_target,
    tracks,
    wakes,
)
from tidegate_infra.components.logs import log_group

VARIANT = "queue"


@dataclass(frozen=True)
class Topics:
    success: sns.Topic
    error: sns.Topic


class AsyncEndpoint(pulumi.ComponentResource):
    """A SageMaker endpoint with `AsyncInferenceConfig`, resting at zero instances."""

    endpoint_name: pulumi.Output[str]
    success_topic_arn: pulumi.Output[str]
    error_topic_arn: pulumi.Output[str]

    def __init__(
        self, name: str, args: InferenceEndpointArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("tidegate:aws:AsyncEndpoint", name, None, opts)
        inner = pulumi.ResourceOptions(parent=self)
        log_group(name, f"/aws/sagemaker/Endpoints/{args.name}", args.kms_key_arn, inner)
        topics = Topics(_topic("success", name, args, inner), _topic("error", name, args, inner))
        configuration = _configuration(name, args, topics, inner)
        endpoint = sagemaker_endpoint(name, args, configuration, inner)
        _follow_backlog(name, args, endpoint, self)
        if args.alarm_topic_arn is not None:
            tells(name, LATE, {"EndpointName": args.name}, args.alarm_topic_arn, self)
        self.endpoint_name = endpoint.name
        self.success_topic_arn, self.error_topic_arn = topics.success.arn, topics.error.arn
        self.register_outputs(
            {
                "endpointName": self.endpoint_name,
                "successTopicArn": self.success_topic_arn,
                "errorTopicArn": self.error_topic_arn,
            }
        )


def _topic(
    what: str, name: str, args: InferenceEndpointArgs, opts: pulumi.ResourceOptions
) -> sns.Topic:
    return sns.Topic(
        f"{name}-{what}",
        name=f"{args.name}-{what}",
        kms_master_key_id=args.kms_key_arn,
        tags=args.tags,
        opts=opts,
    )


def _configuration(
    name: str, args: InferenceEndpointArgs, topics: Topics, opts: pulumi.ResourceOptions
) -> native_sagemaker.EndpointConfig:
    """One variant of one model; it begins with an instance, and the queue takes it to zero."""
    model = sagemaker_model(name, args, opts)
    return native_sagemaker.EndpointConfig(
        name,
        kms_key_id=args.volume_key_arn,
        production_variants=[
            native_sagemaker.EndpointConfigProductionVariantArgs(
                variant_name=VARIANT,
                model_name=model.name,
                instance_type=args.instance_type,
                initial_instance_count=1,
                initial_variant_weight=1.0,
                volume_size_in_gb=args.attached_gb,
                inference_ami_version=args.inference_ami,
                container_startup_health_check_timeout_in_seconds=args.startup_timeout_s,
                model_data_download_timeout_in_seconds=args.download_timeout_s,
            )
        ],
        async_inference_config=_queue(args, topics),
        tags=native_tags(args.tags),
        opts=opts,
    )


def _queue(
    args: InferenceEndpointArgs, topics: Topics
) -> native_sagemaker.EndpointConfigAsyncInferenceConfigArgs:
    """Where results and errors go, and who hears of them."""
    return native_sagemaker.EndpointConfigAsyncInferenceConfigArgs(
        client_config=native_sagemaker.EndpointConfigAsyncInferenceClientConfigArgs(
            max_concurrent_invocations_per_instance=args.max_concurrency
        ),
        output_config=native_sagemaker.EndpointConfigAsyncInferenceOutputConfigArgs(
            kms_key_id=args.kms_key_arn,
            s3_output_path=args.payload("results/"),
            s3_failure_path=args.payload("errors/"),
            notification_config=native_sagemaker.EndpointConfigAsyncInferenceNotificationConfigArgs(
                success_topic=topics.success.arn, error_topic=topics.error.arn
            ),
        ),
    )


def _follow_backlog(
    name: str, args: InferenceEndpointArgs, endpoint: sagemaker.Endpoint, parent: pulumi.Resource
) -> None:
    """Instances follow the queue: as much waits per instance as it serves at once."""
    target = scalable_target(
        name,
        Scalable.instances(args.name, VARIANT, args.max_instances),
        parent,
        after=[endpoint],
    )
    of_endpoint = appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationCustomizedMetricSpecificationDimensionArgs(  # noqa: E501
        name="EndpointName", value=args.name
    )
    backlog = appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationCustomizedMetricSpecificationArgs(  # noqa: E501
        namespace=NAMESPACE,
        metric_name="ApproximateBacklogSizePerInstance",
        statistic="Average",
        dimensions=[of_endpoint],
    )
    tracks(
        name,
        target,
        appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationArgs(
            target_value=float(args.max_concurrency),
            customized_metric_specification=backlog,
            scale_in_cooldown=args.idle_s,
            scale_out_cooldown=SCALE_OUT_COOLDOWN_S,
        ),
    )
    wakes(name, target, Wake("HasBacklogWithoutCapacity", {"EndpointName": args.name}, "Maximum"))
