"""Who may talk to whom: one security group per part, and rules between groups."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_aws import ec2, vpc

from tidegate_infra.components.platform.args import EVERYONE, PlatformArgs

HTTPS, POSTGRES, CONTROL_PLANE = 443, 5432, 8686


@dataclass(frozen=True)
class Way:
    """From one group to another, on one port."""

    source: str
    to: str
    port: int


WAYS = (
    Way("balancer", "control-plane", CONTROL_PLANE),
    Way("control-plane", "database", POSTGRES),
    Way("control-plane", "endpoints", HTTPS),
    Way("inference", "endpoints", HTTPS),
)
"""All there are, beside those to S3 and those into the balancer."""
TO_S3 = ("control-plane", "inference")
GROUPS = ("balancer", "control-plane", "database", "endpoints", "inference")


class Firewall:
    """The groups of a platform, with no rule but those above."""

    def __init__(self, args: PlatformArgs, vpc_id: pulumi.Input[str], parent: pulumi.Resource):
        self._args, self._opts = args, pulumi.ResourceOptions(parent=parent)
        self._groups = {
            part: ec2.SecurityGroup(
                f"{args.name}-{part}",
                description=f"{args.name}: {part}",
                vpc_id=vpc_id,
                tags={**args.tags, "Name": f"{args.name}-{part}"},
                opts=self._opts,
            )
            for part in GROUPS
        }
        for way in WAYS:
            self._open(way)
        for cidr in dict.fromkeys((args.cidr, *args.allowed_cidrs)):
            self._let_in(cidr)
        if args.internet:
            self._let_out()

    @property
    def balancer(self) -> ec2.SecurityGroup:
        return self._groups["balancer"]

    @property
    def control_plane(self) -> ec2.SecurityGroup:
        return self._groups["control-plane"]

    @property
    def database(self) -> ec2.SecurityGroup:
        return self._groups["database"]

    @property
    def endpoints(self) -> ec2.SecurityGroup:
        return self._groups["endpoints"]

    @property
    def inference(self) -> ec2.SecurityGroup:
        """Of hosts of models: they call AWS, and nobody calls them but SageMaker."""
        return self._groups["inference"]

    def open_to_s3(self, prefix_list_id: pulumi.Input[str]) -> None:
        """S3's addresses are a list that AWS keeps."""
        for part in TO_S3:
            vpc.SecurityGroupEgressRule(
                f"{self._args.name}-{part}-s3",
                security_group_id=self._groups[part].id,
                prefix_list_id=prefix_list_id,
                ip_protocol="tcp",
                from_port=HTTPS,
                to_port=HTTPS,
                opts=self._opts,
            )

    def _open(self, way: Way) -> None:
        name = f"{self._args.name}-{way.source}-{way.to}"
        source, to = self._groups[way.source], self._groups[way.to]
        vpc.SecurityGroupEgressRule(
            name,
            security_group_id=source.id,
            referenced_security_group_id=to.id,
            ip_protocol="tcp",
            from_port=way.port,
            to_port=way.port,
            opts=self._opts,
        )
        vpc.SecurityGroupIngressRule(
            name,
            security_group_id=to.id,
            referenced_security_group_id=source.id,
            ip_protocol="tcp",
            from_port=way.port,
            to_port=way.port,
            opts=self._opts,
        )

    def _let_in(self, cidr: str) -> None:
        vpc.SecurityGroupIngressRule(
            f"{self._args.name}-balancer-{cidr}",
            security_group_id=self.balancer.id,
            cidr_ipv4=cidr,
            ip_protocol="tcp",
            from_port=HTTPS,
            to_port=HTTPS,
            opts=self._opts,
        )

    def _let_out(self) -> None:
        """Webhooks may lead to 8443 too; a control plane refuses private addresses itself."""
        for port in (HTTPS, 8443):
            vpc.SecurityGroupEgressRule(
                f"{self._args.name}-control-plane-internet-{port}",
                security_group_id=self.control_plane.id,
                cidr_ipv4=EVERYONE,
                ip_protocol="tcp",
                from_port=port,
                to_port=port,
                opts=self._opts,
            )
