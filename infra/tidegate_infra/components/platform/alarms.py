"""Who hears what: one encrypted topic, alarms on the platform itself, and a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
from pulumi_aws import budgets, cloudwatch, sns

from tidegate_infra.components.platform.args import PlatformArgs
from tidegate_infra.components.platform.key import EVENTS, NOTIFIERS
from tidegate_infra.components.statement import document


@dataclass(frozen=True)
class Trouble:
    """A metric of the platform, and from where on it is trouble for how long."""

    title: str
    namespace: str
    metric: str
    statistic: str
    operator: str
    threshold: float
    minutes: int


MORE, LESS = "GreaterThanOrEqualToThreshold", "LessThanThreshold"
GIB = 1024**3
FAILING = Trouble("failing", "AWS/ApplicationELB", "HTTPCode_Target_5XX_Count", "Sum", MORE, 20, 5)
UNHEALTHY = Trouble("unhealthy", "AWS/ApplicationELB", "UnHealthyHostCount", "Maximum", MORE, 1, 10)
DATABASE_FULL = Trouble("database-full", "AWS/RDS", "FreeStorageSpace", "Minimum", LESS, 5 * GIB, 5)
DATABASE_BUSY = Trouble("database-busy", "AWS/RDS", "CPUUtilization", "Average", MORE, 85, 15)


class Alarms(pulumi.ComponentResource):
    """The topic that alarms speak on; endpoints may speak there too."""

    topic: sns.Topic

    def __init__(self, args: PlatformArgs, key_arn: pulumi.Input[str], parent: pulumi.Resource):
        of_parent = pulumi.ResourceOptions(parent=parent)
        super().__init__("tidegate:aws:Alarms", args.name, None, of_parent)
        self._args, self._opts = args, pulumi.ResourceOptions(parent=self)
        name = f"{args.name}-alarms"
        self.topic = sns.Topic(
            name, name=name, kms_master_key_id=key_arn, tags=args.tags, opts=self._opts
        )
        sns.TopicPolicy(name, arn=self.topic.arn, policy=_may_speak(args, name), opts=self._opts)
        for email in args.alarm_emails:
            sns.TopicSubscription(
                f"{name}-{email}",
                topic=self.topic.arn,
                protocol="email",
                endpoint=email,
                opts=self._opts,
            )
        self._budget()
        self.register_outputs({})

    def watch(self, trouble: Trouble, dimensions: Mapping[str, pulumi.Input[str]]) -> None:
        """Tell when trouble begins, and when it ends."""
        cloudwatch.MetricAlarm(
            f"{self._args.name}-{trouble.title}",
            alarm_description=f"{self._args.name}: {trouble.metric}, see docs/infra.md",
            namespace=trouble.namespace,
            metric_name=trouble.metric,
            dimensions=dimensions,
            statistic=trouble.statistic,
            comparison_operator=trouble.operator,
            threshold=trouble.threshold,
            period=60 * trouble.minutes,
            evaluation_periods=1,
            treat_missing_data="notBreaching",
            alarm_actions=[self.topic.arn],
            ok_actions=[self.topic.arn],
            tags=self._args.tags,
            opts=self._opts,
        )

    def _budget(self) -> None:
        """Of the whole account: what a platform spends is on many bills."""

        def when(kind: str, percent: float) -> budgets.BudgetNotificationArgs:
            return budgets.BudgetNotificationArgs(
                notification_type=kind,
                comparison_operator="GREATER_THAN",
                threshold=percent,
                threshold_type="PERCENTAGE",
                subscriber_email_addresses=list(self._args.alarm_emails),
                subscriber_sns_topic_arns=[self.topic.arn],
            )

        budgets.Budget(
            self._args.name,
            name=self._args.name,
            budget_type="COST",
            time_unit="MONTHLY",
            limit_amount=str(self._args.monthly_budget_usd),
            limit_unit="USD",
            notifications=[when("ACTUAL", 80), when("FORECASTED", 100)],
            tags=self._args.tags,
            opts=self._opts,
        )


def _may_speak(args: PlatformArgs, topic: str) -> str:
    """AWS services of this account, and EventBridge, where failed jobs are told."""
    arn = args.arn("sns", topic)
    may = {"Effect": "Allow", "Action": "sns:Publish", "Resource": arn}
    ours = {"StringEquals": {"aws:SourceAccount": args.account_id}}
    return document(
        {**may, "Sid": "Notices", "Principal": {"Service": NOTIFIERS}, "Condition": ours},
        {**may, "Sid": "Events", "Principal": {"Service": EVENTS}},
    )
