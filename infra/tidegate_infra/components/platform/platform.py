"""A Tidegate platform on AWS, composed of its parts."""

from __future__ import annotations

import pulumi

from tidegate_infra.components.platform.alarms import (
    DATABASE_BUSY,
    DATABASE_FULL,
    FAILING,
    UNHEALTHY,
    Alarms,
)
from tidegate_infra.components.platform.args import PlatformArgs
from tidegate_infra.components.platform.database import Database
from tidegate_infra.components.platform.key import platform_key
from tidegate_infra.components.platform.network import Network
from tidegate_infra.components.platform.registry import Registry
from tidegate_infra.components.platform.roles import Roles
from tidegate_infra.components.platform.secrets import Secrets
from tidegate_infra.components.platform.service import Service, Surroundings
from tidegate_infra.components.platform.storage import (
    DEPLOYMENTS,
    ENDPOINT_RESULTS,
    MODELS,
    Storage,
)


class Platform(pulumi.ComponentResource):
    """Network, storage, database, control planes, and what watches them.

    Its outputs are what an `InferenceEndpoint` in the same stack is made with.
    """

    url: pulumi.Output[str]
    """Of the load balancer; point the certificate's name at it."""
    kms_key_arn: pulumi.Output[str]
    subnet_ids: list[pulumi.Output[str]]
    inference_security_group_id: pulumi.Output[str]
    execution_role_arn: pulumi.Output[str]
    alarm_topic_arn: pulumi.Output[str]
    artifacts_url: str
    """Where models are: `s3://…/models/`."""
    payloads_url: str
    """Where endpoints of modes async and batch write: `s3://…/endpoints/`."""
    state_url: str
    """The Pulumi back end of the stacks that the control planes keep."""
    runtime_repository_url: pulumi.Output[str]
    control_plane_repository_url: pulumi.Output[str]

    def __init__(
        self, name: str, args: PlatformArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("tidegate:aws:Platform", name, None, opts)
        key = platform_key(args, self)
        network = Network(args, key.arn, self)
        storage = Storage(args, key.arn, self)
        database = Database(args, network, key.arn, self)
        secrets = Secrets(args, key.arn, self)
        registry = Registry(args, key.arn, self)
        roles = Roles(args, key.arn, network.vpc.arn, self)
        around = Surroundings(network, database.instance, secrets, roles, storage, key.arn)
        service = Service(args, around, self)
        alarms = Alarms(args, key.arn, self)
        _watch(alarms, service, database)

        self.url = pulumi.Output.concat("https://", service.balancer.dns_name)
        self.kms_key_arn = key.arn
        self.subnet_ids = network.subnets.private_ids
        self.inference_security_group_id = network.firewall.inference.id
        self.execution_role_arn = roles.execution.arn
        self.alarm_topic_arn = alarms.topic.arn
        self.artifacts_url = f"{args.url('artifacts', MODELS)}/"
        self.payloads_url = args.url("payloads", ENDPOINT_RESULTS)
        self.state_url = args.url("state", DEPLOYMENTS)
        self.runtime_repository_url = registry.repositories["runtime"].repository_url
        self.control_plane_repository_url = registry.repositories["control-plane"].repository_url
        self.register_outputs(
            {
                "url": self.url,
                "kmsKeyArn": self.kms_key_arn,
                "executionRoleArn": self.execution_role_arn,
                "alarmTopicArn": self.alarm_topic_arn,
                "stateUrl": self.state_url,
                "runtimeRepositoryUrl": self.runtime_repository_url,
                "controlPlaneRepositoryUrl": self.control_plane_repository_url,
            }
        )


def _watch(alarms: Alarms, service: Service, database: Database) -> None:
    behind = {
        "LoadBalancer": service.balancer.arn_suffix,
        "TargetGroup": service.targets.arn_suffix,
    }
    for trouble in (FAILING, UNHEALTHY):
        alarms.watch(trouble, behind)
    for trouble in (DATABASE_FULL, DATABASE_BUSY):
        alarms.watch(trouble, {"DBInstanceIdentifier": database.instance.identifier})
