"""What tells people that an endpoint fails; it scales nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
from pulumi_aws import cloudwatch

from tidegate_infra.components.inference_endpoint.scaling import NAMESPACE

WINDOW_S = 300


@dataclass(frozen=True)
class Trouble:
    """A metric, and the value from which on it is trouble."""

    title: str
    metric: str
    statistic: str
    threshold: float


FAILS = Trouble("fails", "Invocation5XXErrors", "Sum", 5)
LATE = Trouble("late", "ApproximateAgeOfOldestRequest", "Maximum", 900)
"""The oldest queued request waits for a quarter of an hour: twice a cold start."""


def tells(
    name: str,
    trouble: Trouble,
    dimensions: Mapping[str, str],
    topic_arn: pulumi.Input[str],
    parent: pulumi.Resource,
) -> cloudwatch.MetricAlarm:
    """An alarm that speaks on a topic when trouble begins, and when it ends."""
    return cloudwatch.MetricAlarm(
        f"{name}-{trouble.title}",
        alarm_description=f"{name}: {trouble.metric} is {trouble.threshold:g} or more in 5 minutes",
        namespace=NAMESPACE,
        metric_name=trouble.metric,
        dimensions=dict(dimensions),
        statistic=trouble.statistic,
        period=WINDOW_S,
        evaluation_periods=1,
        threshold=trouble.threshold,
        comparison_operator="GreaterThanOrEqualToThreshold",
        treat_missing_data="notBreaching",
        alarm_actions=[topic_arn],
        ok_actions=[topic_arn],
        opts=pulumi.ResourceOptions(parent=parent),
    )
