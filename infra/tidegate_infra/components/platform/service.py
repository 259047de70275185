"""Control planes on Fargate, behind a load balancer that speaks TLS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_aws import ecs, lb, rds

from tidegate.protocol.api_keys import ADMIN_KEY_VARIABLE
from tidegate_infra.components.logs import log_group
from tidegate_infra.components.platform.args import PlatformArgs
from tidegate_infra.components.platform.database import NAME, USER
from tidegate_infra.components.platform.firewall import CONTROL_PLANE, HTTPS
from tidegate_infra.components.platform.network import Network
from tidegate_infra.components.platform.roles import Roles
from tidegate_infra.components.platform.secrets import Secrets
from tidegate_infra.components.platform.storage import BODIES, DEPLOYMENTS, MODELS, Storage

CONTAINER = "control-plane"
DRAIN_S = 120
"""More than the control plane's own 30 seconds after SIGTERM; ECS allows no more."""
IDLE_S = 120
"""Of a connection; a held request and a stream are heard of every 10 seconds."""

START = """\
set -eu
umask 077
printf %s "$TIDEGATE_PEPPER" | base64 -d > /data/pepper
printf %s "$TIDEGATE_SETTINGS" > /data/settings.yaml
unset TIDEGATE_PEPPER TIDEGATE_SETTINGS
exec python -m tidegate_controlplane --data /data --config /data/settings.yaml\
 --host 0.0.0.0 --port "$TIDEGATE_PORT"
"""
"""A control plane keeps its pepper in a file; the disk of a task lives as long as the task."""


@dataclass(frozen=True)
class Surroundings:
    """The other parts of a platform that control planes live among."""

    network: Network
    database: rds.Instance
    secrets: Secrets
    roles: Roles
    storage: Storage
    key_arn: pulumi.Input[str]


class Service(pulumi.ComponentResource):
    """The ECS service, its load balancer, and its logs."""

    cluster: ecs.Cluster
    balancer: lb.LoadBalancer
    targets: lb.TargetGroup
    service: ecs.Service

    def __init__(self, args: PlatformArgs, around: Surroundings, parent: pulumi.Resource):
        of_parent = pulumi.ResourceOptions(parent=parent)
        super().__init__("tidegate:aws:Service", args.name, None, of_parent)
        self._args, self._network = args, around.network
        self._opts = pulumi.ResourceOptions(parent=self)
        path = f"/tidegate/{args.name}/control-plane"
        logs = log_group(args.name, path, around.key_arn, self._opts)
        task = self._task(_container(args, around, logs.name), around.roles)
        # A control plane that starts without its rights, secrets or buckets is taken back.
        needs = [around.roles, around.secrets, around.storage]
        self.balancer = self._balancer()
        self.targets = self._targets()
        listener = self._listener()
        self.cluster = ecs.Cluster(
            args.name,
            name=args.name,
            settings=[ecs.ClusterSettingArgs(name="containerInsights", value="enabled")],
            tags=args.tags,
            opts=self._opts,
        )
        self.service = self._service(task, [listener, *needs])
        self.register_outputs({})

    def _balancer(self) -> lb.LoadBalancer:
        args, subnets = self._args, self._network.subnets
        return lb.LoadBalancer(
            args.name,
            name=args.name,
            load_balancer_type="application",
            internal=args.internal,
            subnets=subnets.private_ids if args.internal else subnets.public_ids,
            security_groups=[self._network.firewall.balancer.id],
            drop_invalid_header_fields=True,
            enable_deletion_protection=args.protect,
            idle_timeout=IDLE_S,
            tags=args.tags,
            opts=self._opts,
        )

    def _targets(self) -> lb.TargetGroup:
        """By the fewest requests: one control plane may hold many, and another none."""
        return lb.TargetGroup(
            self._args.name,
            name=self._args.name,
            vpc_id=self._network.vpc.id,
            port=CONTROL_PLANE,
            protocol="HTTP",
            target_type="ip",
            load_balancing_algorithm_type="least_outstanding_requests",
            deregistration_delay=DRAIN_S,
            health_check=lb.TargetGroupHealthCheckArgs(
                path="/readyz", matcher="200", interval=10, timeout=5, healthy_threshold=2
            ),
            tags=self._args.tags,
            opts=self._opts,
        )

    def _listener(self) -> lb.Listener:
        return lb.Listener(
            self._args.name,
            load_balancer_arn=self.balancer.arn,
            port=HTTPS,
            protocol="HTTPS",
            ssl_policy="ELBSecurityPolicy-TLS13-1-2-2021-06",
            certificate_arn=self._args.certificate_arn,
            default_actions=[
                lb.ListenerDefaultActionArgs(type="forward", target_group_arn=self.targets.arn)
            ],
            tags=self._args.tags,
            opts=self._opts,
        )

    def _task(self, container: pulumi.Input[Mapping[str, Any]], roles: Roles) -> ecs.TaskDefinition:
        args = self._args
        return ecs.TaskDefinition(
            args.name,
            family=args.name,
            requires_compatibilities=["FARGATE"],
            network_mode="awsvpc",
            cpu=str(args.control_plane_cpu),
            memory=str(args.control_plane_memory_mb),
            ephemeral_storage=ecs.TaskDefinitionEphemeralStorageArgs(size_in_gib=args.spool_gb),
            task_role_arn=roles.task.arn,
            execution_role_arn=roles.start.arn,
            volumes=[ecs.TaskDefinitionVolumeArgs(name=name) for name in ("data", "tmp")],
            container_definitions=pulumi.Output.json_dumps([container]),
            tags=args.tags,
            opts=self._opts,
        )

    def _service(self, task: ecs.TaskDefinition, after: list[pulumi.Resource]) -> ecs.Service:
        """A task that does not become ready takes its rollout back, and `up` fails."""
        args = self._args
        return ecs.Service(
            args.name,
            name=args.name,
            cluster=self.cluster.arn,
            task_definition=task.arn,
            launch_type="FARGATE",
            desired_count=args.control_planes,
            deployment_minimum_healthy_percent=100,
            deployment_maximum_percent=200,
            deployment_circuit_breaker=ecs.ServiceDeploymentCircuitBreakerArgs(
                enable=True, rollback=True
            ),
            health_check_grace_period_seconds=120,
            wait_for_steady_state=True,
            enable_execute_command=False,
            network_configuration=ecs.ServiceNetworkConfigurationArgs(
                subnets=self._network.subnets.private_ids,
                security_groups=[self._network.firewall.control_plane.id],
                assign_public_ip=False,
            ),
            load_balancers=[
                ecs.ServiceLoadBalancerArgs(
                    target_group_arn=self.targets.arn,
                    container_name=CONTAINER,
                    container_port=CONTROL_PLANE,
                )
            ],
            propagate_tags="SERVICE",
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=after),
        )


def _container(
    args: PlatformArgs, around: Surroundings, logs: pulumi.Input[str]
) -> Mapping[str, Any]:
    """The container as ECS's API spells it. libpq reads the password from its own variable."""
    environment: dict[str, pulumi.Input[str]] = {
        "PGSSLMODE": "require",
        "TIDEGATE_PORT": str(CONTROL_PLANE),
        "TIDEGATE_SETTINGS": _settings(args, around),
    }
    secrets = around.secrets
    told = {
        "PGPASSWORD": secrets.database_password,
        "TIDEGATE_PEPPER": secrets.pepper,
        ADMIN_KEY_VARIABLE: secrets.admin_key,
    }
    return {
        "name": CONTAINER,
        "image": args.control_plane_image,
        "essential": True,
        "entryPoint": ["/bin/sh", "-c"],
        "command": [START],
        "readonlyRootFilesystem": True,
        "stopTimeout": DRAIN_S,
        "portMappings": [{"containerPort": CONTROL_PLANE, "protocol": "tcp"}],
        "mountPoints": [
            {"sourceVolume": name, "containerPath": f"/{name}"} for name in ("data", "tmp")
        ],
        "environment": [{"name": name, "value": environment[name]} for name in sorted(environment)],
        "secrets": [{"name": name, "valueFrom": told[name]} for name in sorted(told)],
        "logConfiguration": {
            "logDriver": "awslogs",
            "options": {
                "awslogs-group": logs,
                "awslogs-region": args.region,
                "awslogs-stream-prefix": CONTAINER,
            },
        },
    }


def _settings(args: PlatformArgs, around: Surroundings) -> pulumi.Output[str]:
    """The settings file; JSON is YAML."""

    def text(known: Mapping[str, Any]) -> str:
        ours: dict[str, Any] = {
            "database": f"postgresql://{USER}@{known['address']}/{NAME}",
            "objects": args.url("payloads", BODIES),
            "encryption": {"keys": [f"kms:{known['key']}"], "required": True},
        }
        if args.runtime_image is not None:
            ours["aws"] = _hosting(args, known)
        said = {name: {**ours.get(name, {}), **args.settings[name]} for name in args.settings}
        return json.dumps(ours | said)

    return pulumi.Output.all(
        address=around.database.address,
        key=around.key_arn,
        image=args.runtime_image,
        role=around.roles.execution.arn,
        subnets=around.network.subnets.private_ids,
        group=around.network.firewall.inference.id,
    ).apply(text)


def _hosting(args: PlatformArgs, known: Mapping[str, Any]) -> dict[str, Any]:
    """Where control planes host models: in this network, under this name, with this role."""
    return {
        "region": args.region,
        "name": args.name,
        "state": args.url("state", DEPLOYMENTS),
        "artifacts": args.url("artifacts", MODELS),
        "image": known["image"],
        "execution_role_arn": known["role"],
        "subnets": known["subnets"],
        "security_groups": [known["group"]],
        "kms_key": known["key"],
    }
