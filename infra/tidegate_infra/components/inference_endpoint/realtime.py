"""Always on: at least one copy, and more as requests come."""

from __future__ import annotations

import pulumi
from pulumi_aws import appautoscaling

from tidegate_infra.components.inference_endpoint.alarms import FAILS, tells
from tidegate_infra.components.inference_endpoint.args import InferenceEndpointArgs
from tidegate_infra.components.inference_endpoint.copies import Hosted, hosted_copies
from tidegate_infra.components.inference_endpoint.fields import ScaledBy
from tidegate_infra.components.inference_endpoint.scaling import (
    SCALE_OUT_COOLDOWN_S,
    Scalable,
    scalable_target,
    tracks,
)

CONCURRENCY = "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution"


class RealtimeEndpoint(pulumi.ComponentResource):
    """A SageMaker endpoint whose inference component has one copy at least."""

    endpoint_name: pulumi.Output[str]
    component_name: pulumi.Output[str]

    def __init__(
        self, name: str, args: InferenceEndpointArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("tidegate:aws:RealtimeEndpoint", name, None, opts)
        hosted = hosted_copies(name, args, self)
        if args.scaled_by is ScaledBy.AWS:
            follow_requests(name, args, hosted, self)
        tell_of_failures(name, args, self)
        self.endpoint_name = hosted.endpoint.name
        self.component_name = pulumi.Output.from_input(args.name)
        self.register_outputs(
            {"endpointName": self.endpoint_name, "componentName": self.component_name}
        )


def follow_requests(
    name: str, args: InferenceEndpointArgs, hosted: Hosted, parent: pulumi.Resource
) -> appautoscaling.Target:
    """Copies follow the requests in flight, between the least and the most."""
    target = scalable_target(
        name,
        Scalable.copies(args.name, args.min_copies, args.max_copies),
        parent,
        after=[hosted.component],
    )
    metric = appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationPredefinedMetricSpecificationArgs(  # noqa: E501
        predefined_metric_type=CONCURRENCY
    )
    tracks(
        name,
        target,
        appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationArgs(
            target_value=args.target_concurrency,
            predefined_metric_specification=metric,
            scale_in_cooldown=args.idle_s,
            scale_out_cooldown=SCALE_OUT_COOLDOWN_S,
        ),
    )
    return target


def tell_of_failures(name: str, args: InferenceEndpointArgs, parent: pulumi.Resource) -> None:
    """An alarm on answers of 5xx, where there is a topic for it."""
    if args.alarm_topic_arn is not None:
        tells(name, FAILS, {"InferenceComponentName": args.name}, args.alarm_topic_arn, parent)
