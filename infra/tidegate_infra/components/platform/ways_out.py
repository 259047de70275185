"""A way to the internet, and none from it: NAT gateways in public subnets."""

from __future__ import annotations

from collections.abc import Sequence

import pulumi
from pulumi_aws import ec2

from tidegate_infra.components.platform.args import PlatformArgs


def ways_out(
    args: PlatformArgs, vpc: ec2.Vpc, public: Sequence[ec2.Subnet], parent: pulumi.Resource
) -> list[ec2.NatGateway]:
    """One gateway per zone, in the order of the public subnets."""
    opts = pulumi.ResourceOptions(parent=parent)
    internet = ec2.InternetGateway(args.name, vpc_id=vpc.id, tags=args.tags, opts=opts)
    table = ec2.RouteTable(
        f"{args.name}-public",
        vpc_id=vpc.id,
        routes=[ec2.RouteTableRouteArgs(cidr_block="0.0.0.0/0", gateway_id=internet.id)],
        tags=args.tags,
        opts=opts,
    )
    gateways = []
    for zone, subnet in zip(args.availability_zones, public, strict=True):
        name = f"{args.name}-public-{zone}"
        ec2.RouteTableAssociation(name, subnet_id=subnet.id, route_table_id=table.id, opts=opts)
        address = ec2.Eip(name, domain="vpc", tags=args.tags, opts=opts)
        gateways.append(
            ec2.NatGateway(
                name, subnet_id=subnet.id, allocation_id=address.id, tags=args.tags, opts=opts
            )
        )
    return gateways
