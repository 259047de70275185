"""What scales an endpoint when AWS owns the number: a target, a tracking policy, and a wake-up.

Target tracking cannot leave zero, since it divides by the copies there are. A step policy behind
an alarm does: on requests that were refused for want of capacity, or queued without it.
Sources: the AWS pages "Scale an endpoint to zero instances" and "Autoscale an asynchronous
endpoint".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_aws import appautoscaling, cloudwatch

NAMESPACE = "AWS/SageMaker"
SCALE_OUT_COOLDOWN_S = 60


@dataclass(frozen=True)
class Scalable:
    """What is scaled, as Application Auto Scaling names it."""

    resource_id: str
    dimension: str
    min_capacity: int
    max_capacity: int

    @classmethod
    def copies(cls, component: str, least: int, most: int) -> Scalable:
        """Copies of an inference component."""
        dimension = "sagemaker:inference-component:DesiredCopyCount"
        return cls(f"inference-component/{component}", dimension, least, most)

    @classmethod
    def instances(cls, endpoint: str, variant: str, most: int) -> Scalable:
        """Instances of a variant, from zero; only an asynchronous endpoint may have none."""
        dimension = "sagemaker:variant:DesiredInstanceCount"
        return cls(f"endpoint/{endpoint}/variant/{variant}", dimension, 0, most)


@dataclass(frozen=True)
class Wake:
    """The metric that says: there is work, and nobody to do it."""

    metric: str
    dimensions: dict[str, str]
    statistic: str


def scalable_target(
    name: str, scalable: Scalable, parent: pulumi.Resource, after: Sequence[pulumi.Resource]
) -> appautoscaling.Target:
    """Registers the target. It exists only once what it names does, hence `after`."""
    return appautoscaling.Target(
        name,
        service_namespace="sagemaker",
        resource_id=scalable.resource_id,
        scalable_dimension=scalable.dimension,
        min_capacity=scalable.min_capacity,
        max_capacity=scalable.max_capacity,
        opts=pulumi.ResourceOptions(parent=parent, depends_on=list(after)),
    )


def tracks(
    name: str,
    target: appautoscaling.Target,
    configuration: appautoscaling.PolicyTargetTrackingScalingPolicyConfigurationArgs,
) -> appautoscaling.Policy:
    """Keeps a metric near its target value, down to the least capacity."""
    return appautoscaling.Policy(
        f"{name}-tracks",
        policy_type="TargetTrackingScaling",
        service_namespace=target.service_namespace,
        resource_id=target.resource_id,
        scalable_dimension=target.scalable_dimension,
        target_tracking_scaling_policy_configuration=configuration,
        opts=pulumi.ResourceOptions(parent=target),
    )


def wakes(name: str, target: appautoscaling.Target, wake: Wake) -> cloudwatch.MetricAlarm:
    """One more from zero, on the first minute that has work without capacity."""
    step = appautoscaling.Policy(
        f"{name}-wakes",
        policy_type="StepScaling",
        service_namespace=target.service_namespace,
        resource_id=target.resource_id,
        scalable_dimension=target.scalable_dimension,
        step_scaling_policy_configuration=appautoscaling.PolicyStepScalingPolicyConfigurationArgs(
            adjustment_type="ChangeInCapacity",
            metric_aggregation_type="Maximum",
            cooldown=SCALE_OUT_COOLDOWN_S,
            step_adjustments=[
                appautoscaling.PolicyStepScalingPolicyConfigurationStepAdjustmentArgs(
                    metric_interval_lower_bound="0", scaling_adjustment=1
                )
            ],
        ),
        opts=pulumi.ResourceOptions(parent=target),
    )
    return cloudwatch.MetricAlarm(
        f"{name}-wakes",
        alarm_description=f"{name} has work and no capacity: start one",
        namespace=NAMESPACE,
        metric_name=wake.metric,
        dimensions=wake.dimensions,
        statistic=wake.statistic,
        period=60,
        evaluation_periods=1,
        datapoints_to_alarm=1,
        threshold=1,
        # The AWS page has GreaterThan, which leaves the first refused request without effect.
        comparison_operator="GreaterThanOrEqualToThreshold",
        treat_missing_data="notBreaching",
        alarm_actions=[step.arn],
        opts=pulumi.ResourceOptions(parent=target),
    )
