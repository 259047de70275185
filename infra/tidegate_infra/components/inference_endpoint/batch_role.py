"""What the instances of a batch may do by themselves: join the cluster, pull, log."""

from __future__ import annotations

import pulumi
from pulumi_aws import iam

from tidegate_infra.components.inference_endpoint.args import InferenceEndpointArgs
from tidegate_infra.components.statement import trust

ECS_INSTANCE_POLICY = "arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
"""AWS's own, since the ECS agent's calls cannot be named to one cluster before Batch makes it."""


def instance_profile(
    name: str, args: InferenceEndpointArgs, opts: pulumi.ResourceOptions
) -> iam.InstanceProfile:
    """The profile that Batch starts instances with; jobs have a role of their own."""
    role = iam.Role(
        f"{name}-instances",
        assume_role_policy=trust("ec2.amazonaws.com"),
        tags=args.tags,
        opts=opts,
    )
    iam.RolePolicyAttachment(
        f"{name}-instances", role=role.name, policy_arn=ECS_INSTANCE_POLICY, opts=opts
    )
    return iam.InstanceProfile(f"{name}-instances", role=role.name, tags=args.tags, opts=opts)
