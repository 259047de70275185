"""A role may do what it is named for, to what it is named for.

A prefix of names is no wildcard (`endpoint/tidegate-*`), nor are the objects of one bucket. Actions
that AWS offers no way to name a resource for are listed here, each with its reason; the service
authorization reference says which they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from tidegate_infra.policy.declared import Declared, as_list, statements
from tidegate_infra.policy.finding import Finding

NO_RESOURCE: dict[str, str] = {
    "ecr:GetAuthorizationToken": "one token for the registry",
    "logs:DescribeLogGroups": "descriptions are of the whole account",
    "ec2:DescribeDhcpOptions": "descriptions are of the whole account",
    "ec2:DescribeNetworkInterfaces": "descriptions are of the whole account",
    "ec2:DescribeSecurityGroups": "descriptions are of the whole account",
    "ec2:DescribeSubnets": "descriptions are of the whole account",
    "ec2:DescribeVpcs": "descriptions are of the whole account",
    "cloudformation:CreateResource": "Cloud Control names none; the service's own rights bound it",
    "cloudformation:DeleteResource": "Cloud Control names none; the service's own rights bound it",
    "cloudformation:GetResource": "Cloud Control names none; the service's own rights bound it",
    "cloudformation:GetResourceRequestStatus": "Cloud Control names requests by tokens",
    "cloudformation:CancelResourceRequest": "Cloud Control names requests by tokens",
    "cloudformation:UpdateResource": "Cloud Control names none; the service's own rights bound it",
    "sagemaker:ListInferenceComponents": "lists are of the whole account",
    "pricing:GetProducts": "prices are AWS's own",
    "ec2:DescribeSpotPriceHistory": "prices are AWS's own",
}
"""Actions that may stand beside every resource, and why."""

BOUND_BY: dict[str, str] = {
    "cloudwatch:PutMetricData": "cloudwatch:namespace",
    "ec2:CreateNetworkInterface": "ec2:Vpc",
    "ec2:CreateNetworkInterfacePermission": "ec2:Vpc",
    "ec2:DeleteNetworkInterface": "ec2:Vpc",
    "ec2:DeleteNetworkInterfacePermission": "ec2:Vpc",
}
"""Actions on what has no name yet, and the condition key that has to bound them instead."""

NOWHERE_YET: dict[tuple[str, str], str] = {
    ("ec2:CreateNetworkInterface", "network-interface"): (
        "an interface that is about to be made is in no network; its subnet and its group are bound"
    ),
}
"""Actions on a kind of resource that no condition key speaks of, and what bounds them instead."""

MANAGED: dict[str, str] = {
    "arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role": (
        "the ECS agent of an instance, whose cluster Batch names only when it makes it"
    ),
}
"""Policies of AWS's own that may be attached, and why."""

DOCUMENTS = {
    "aws:iam/policy:Policy": "policy",
    "aws:iam/rolePolicy:RolePolicy": "policy",
}
ATTACHMENT = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
ROLE = "aws:iam/role:Role"

EVERY_BUCKET = re.compile(r"^arn:aws[a-z-]*:s3:::\*")
EVERY_RESOURCE = re.compile(r"^arn:aws[a-z-]*:(?!s3:)[a-z0-9-]+:[^:]*:[^:]*:([a-z-]+[/:])?\*$")


def wildcard_findings(resources: Sequence[Declared]) -> Iterator[Finding]:
    """Every right that is wider than a name or a prefix of names."""
    for resource in resources:
        if resource.type in DOCUMENTS:
            for statement in statements(resource.inputs, DOCUMENTS[resource.type]):
                for said in _too_wide(statement):
                    yield Finding("wildcard", str(resource), said)
        if resource.type == ATTACHMENT and resource.inputs.get("policyArn") not in MANAGED:
            said = f"attaches {resource.inputs.get('policyArn')}; write the rights out instead"
            yield Finding("wildcard", str(resource), said)
        if resource.type == ROLE and _anybody_may_take(resource.inputs):
            yield Finding("wildcard", str(resource), "anybody may take it; name the service")


def _too_wide(statement: dict[str, Any]) -> Iterator[str]:
    if statement.get("Effect") != "Allow":
        return
    if "NotAction" in statement or "NotResource" in statement:
        yield "allows all but something; name what is allowed"
    actions = as_list(statement.get("Action", []))
    for action in actions:
        if "*" in action:
            yield f"allows the action {action}; name the actions"
    wide = [each for each in as_list(statement.get("Resource", [])) if _is_wide(each)]
    for action in actions:
        far = [each for each in wide if not _may_be_wide(action, each, statement)]
        if far and "*" not in action:
            yield f"allows {action} on {far[0]}; name the resources, or a prefix of them"


def _is_wide(resource: str) -> bool:
    return resource == "*" or bool(EVERY_BUCKET.match(resource) or EVERY_RESOURCE.match(resource))


def _may_be_wide(action: str, resource: str, statement: dict[str, Any]) -> bool:
    keys = {key for test in statement.get("Condition", {}).values() for key in test}
    kind = resource.rpartition(":")[2].partition("/")[0]
    return action in NO_RESOURCE or (action, kind) in NOWHERE_YET or BOUND_BY.get(action) in keys


def _anybody_may_take(inputs: Any) -> bool:
    return any(
        statement.get("Principal") in ("*", {"AWS": "*"})
        for statement in statements(inputs, "assumeRolePolicy")
    )
