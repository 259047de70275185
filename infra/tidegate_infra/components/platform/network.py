"""A private network: everything of a platform lives in it, and reaches AWS without the internet."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from itertools import count, islice

import pulumi
from pulumi_aws import ec2, iam

from tidegate_infra.components.logs import log_group
from tidegate_infra.components.platform.args import SUBNET_BITS, PlatformArgs
from tidegate_infra.components.platform.firewall import Firewall
from tidegate_infra.components.platform.ways_out import ways_out
from tidegate_infra.components.statement import allow, document, trust

SERVICES = (
    "cloudcontrolapi",
    "ecr.api",
    "ecr.dkr",
    "kms",
    "logs",
    "sagemaker.api",
    "sagemaker.runtime",
    "secretsmanager",
    "sts",
)
"""What control planes and hosts of models call. S3 has a gateway, which costs nothing."""
OF_BATCH_HOSTS = ("ecs", "ecs-agent", "ecs-telemetry")
"""What the ECS agent of a batch's instances calls; without these no job is ever placed."""


@dataclass(frozen=True)
class Subnets:
    private: list[ec2.Subnet]
    public: list[ec2.Subnet]

    @property
    def private_ids(self) -> list[pulumi.Output[str]]:
        return [subnet.id for subnet in self.private]

    @property
    def public_ids(self) -> list[pulumi.Output[str]]:
        return [subnet.id for subnet in self.public]


class Network(pulumi.ComponentResource):
    """VPC, subnets, endpoints of AWS services, firewalls, and a log of what flows."""

    def __init__(self, args: PlatformArgs, key_arn: pulumi.Input[str], parent: pulumi.Resource):
        of_parent = pulumi.ResourceOptions(parent=parent)
        super().__init__("tidegate:aws:Network", args.name, None, of_parent)
        self.vpc = ec2.Vpc(
            args.name,
            cidr_block=args.cidr,
            enable_dns_hostnames=True,
            enable_dns_support=True,
            tags=_named(args, args.name),
            opts=self._inner,
        )
        ec2.DefaultSecurityGroup(args.name, vpc_id=self.vpc.id, opts=self._inner)
        self.subnets = self._subnets(args)
        routes = self._routes(args)
        self.firewall = Firewall(args, self.vpc.id, self)
        self._endpoints(args, routes)
        self._flows(args, key_arn)
        self.register_outputs({})

    @property
    def _inner(self) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self)

    def _subnets(self, args: PlatformArgs) -> Subnets:
        network = ipaddress.ip_network(args.cidr)
        blocks = network.subnets(new_prefix=network.prefixlen + SUBNET_BITS)
        kinds = ("private", "public") if args.internet else ("private",)
        made = {
            kind: [
                ec2.Subnet(
                    f"{args.name}-{kind}-{zone}",
                    vpc_id=self.vpc.id,
                    availability_zone=zone,
                    cidr_block=str(block),
                    map_public_ip_on_launch=False,
                    tags=_named(args, f"{args.name}-{kind}-{zone}"),
                    opts=self._inner,
                )
                for zone, block in zip(
                    args.availability_zones,
                    islice(blocks, len(args.availability_zones)),
                    strict=True,
                )
            ]
            for kind in kinds
        }
        return Subnets(made["private"], made.get("public", []))

    def _routes(self, args: PlatformArgs) -> list[ec2.RouteTable]:
        """One table per private subnet: a NAT gateway serves its own zone."""
        gateways = ways_out(args, self.vpc, self.subnets.public, self) if args.internet else []
        tables = []
        for at, subnet in zip(count(), self.subnets.private, strict=False):
            name = f"{args.name}-{args.availability_zones[at]}"
            out = [
                ec2.RouteTableRouteArgs(cidr_block="0.0.0.0/0", nat_gateway_id=gateway.id)
                for gateway in gateways[at : at + 1]
            ]
            table = ec2.RouteTable(
                name, vpc_id=self.vpc.id, routes=out, tags=_named(args, name), opts=self._inner
            )
            ec2.RouteTableAssociation(
                name, subnet_id=subnet.id, route_table_id=table.id, opts=self._inner
            )
            tables.append(table)
        return tables

    def _endpoints(self, args: PlatformArgs, routes: list[ec2.RouteTable]) -> None:
        s3 = ec2.VpcEndpoint(
            f"{args.name}-s3",
            vpc_id=self.vpc.id,
            service_name=f"com.amazonaws.{args.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[table.id for table in routes],
            tags=_named(args, f"{args.name}-s3"),
            opts=self._inner,
        )
        self.firewall.open_to_s3(s3.prefix_list_id)
        for service in (*SERVICES, *(OF_BATCH_HOSTS if args.batch_hosts else ())):
            ec2.VpcEndpoint(
                f"{args.name}-{service}",
                vpc_id=self.vpc.id,
                service_name=f"com.amazonaws.{args.region}.{service}",
                vpc_endpoint_type="Interface",
                private_dns_enabled=True,
                subnet_ids=self.subnets.private_ids,
                security_group_ids=[self.firewall.endpoints.id],
                tags=_named(args, f"{args.name}-{service}"),
                opts=self._inner,
            )

    def _flows(self, args: PlatformArgs, key_arn: pulumi.Input[str]) -> None:
        path = f"/tidegate/{args.name}/flows"
        group = log_group(f"{args.name}-flows", path, key_arn, self._inner)
        role = _flow_role(args, path, self._inner)
        ec2.FlowLog(
            args.name,
            vpc_id=self.vpc.id,
            traffic_type="ALL",
            log_destination=group.arn,
            iam_role_arn=role.arn,
            opts=self._inner,
        )


def _flow_role(args: PlatformArgs, path: str, opts: pulumi.ResourceOptions) -> iam.Role:
    role = iam.Role(
        f"{args.name}-flows",
        assume_role_policy=trust("vpc-flow-logs.amazonaws.com"),
        tags=args.tags,
        opts=opts,
    )
    actions = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
    group = args.arn("logs", f"log-group:{path}")
    iam.RolePolicy(
        f"{args.name}-flows",
        role=role.id,
        policy=document(allow(actions, [group, f"{group}:*"])),
        opts=opts,
    )
    return role


def _named(args: PlatformArgs, name: str) -> dict[str, str]:
    return {**args.tags, "Name": name}
