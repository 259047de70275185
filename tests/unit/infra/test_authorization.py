"""The rights of a platform are ones that AWS knows, and their conditions can hold.

A condition on a key that a resource does not have denies it; so does a resource of another kind.
`authorization.json` has, of AWS's reference, the actions that the roles name: their kinds of
resource, and which of the condition keys in use each of these has.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.infra.declarations import platform_resources

import tidegate_controlplane
from tidegate_infra.policy.declared import as_list, of_type, statements

REFERENCE: dict[str, Any] = json.loads(Path(__file__).with_name("authorization.json").read_text())
ARNS, ACTIONS, OPTIONAL = (REFERENCE[part] for part in ("arns", "actions", "optional"))
Statement = dict[str, Any]


def is_of(kind: str, resource: str) -> bool:
    """Whether some resource that a policy speaks of is of a kind."""
    if "*" in (kind, resource):
        return kind == resource or resource == "*"
    some = (resource.replace("*", each) for each in ("x", "x:log-stream:y"))
    return any(fnmatch.fnmatch(each, ARNS[kind]) for each in some)


def holds(statement: Statement, action: str, kind: str) -> bool:
    """Whether it allows the action on this kind, with conditions that the kind knows."""
    keys = {key for test in statement.get("Condition", {}).values() for key in test}
    of_kind = any(is_of(kind, each) for each in as_list(statement["Resource"]))
    return action in as_list(statement["Action"]) and of_kind and keys <= {*ACTIONS[action][kind]}


def troubles(document: list[Statement]) -> Iterator[str]:
    for action in {action for each in document for action in as_list(each["Action"])}:
        if action not in ACTIONS:
            yield f"{action} is not in the reference; add it from there"
            continue
        kinds = ACTIONS[action]
        needed = kinds.keys() - {*OPTIONAL.get(action, [])} or kinds.keys()
        for kind in needed:
            if not any(holds(each, action, kind) for each in document):
                yield f"{action} is not allowed on any {kind}"


def test_each_right_of_a_platform_is_one_that_aws_can_grant() -> None:
    documents = [
        (each.name, statements(each.inputs, "policy"))
        for each in of_type(platform_resources(), "aws:iam/rolePolicy:RolePolicy")
    ]
    assert [(name, said) for name, of in documents for said in troubles(of)] == []


VPC = {"ArnEquals": {"ec2:Vpc": "arn:aws:ec2:eu-central-1:1:vpc/v"}}
REFUSED = [
    ("s3:GetAll", "arn:aws:s3:::a/*", None, "is not in the reference"),
    ("s3:GetObject", "arn:aws:sns:eu-central-1:1:a", None, "is not allowed on any object"),
    (
        "sagemaker:ListInferenceComponents",
        "arn:aws:sagemaker:eu-1:1:endpoint/a",
        None,
        "on any [*]",
    ),
    ("ec2:CreateNetworkInterface", "*", VPC, "is not allowed on any network-interface"),
]


@pytest.mark.parametrize(("action", "resource", "condition", "said"), REFUSED)
def test_a_right_that_aws_would_not_grant_is_found(
    action: str, resource: str, condition: Any, said: str
) -> None:
    statement = {"Effect": "Allow", "Action": action, "Resource": resource}
    found = [*troubles([statement | ({"Condition": condition} if condition else {})])]
    assert any(re.search(said, each) for each in found), found


CLIENTS = {
    "encryption/kms.py": "kms",
    "models/s3.py": "s3",
    "objects/bucket.py": "s3",
    "objects/s3.py": "s3",
    "offers/aws.py": None,  # asks two services, each by a paginator
    "provision/aws/container_logs.py": "logs",
    "provision/aws/copies.py": "sagemaker",
    "work/inputs.py": "s3",
}
"""Of the control plane, the files that call AWS, and the service whose client they have."""
OTHERWISE = {
    "GetProducts": "pricing:GetProducts",
    "DescribeSpotPriceHistory": "ec2:DescribeSpotPriceHistory",
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:UploadFile": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
}
"""Calls whose right is called otherwise. Source: "Actions, resources, and condition keys"."""
CALL = re.compile(
    r"""client\.(?!get_paginator)([a-z_]+)\b(?:\(|,)|get_paginator\("([a-z0-9_]+)"\)"""
)
ROOM = Path(tidegate_controlplane.__file__).parent


def called(file: str, service: str | None) -> set[str]:
    """The rights that a file's calls want."""
    found = {one or other for one, other in CALL.findall((ROOM / file).read_text())}
    names = {"".join(part.capitalize() for part in each.split("_")) for each in found}
    rights = {f"{service}:{name}" if service else name for name in names}
    return {OTHERWISE.get(each, each) for each in rights}


def test_a_control_plane_may_do_each_thing_that_its_code_calls() -> None:
    granted = {
        action
        for each in of_type(platform_resources(), "aws:iam/rolePolicy:RolePolicy")
        if each.name.startswith("tidegate-task-")
        for statement in statements(each.inputs, "policy")
        for action in as_list(statement["Action"])
    }
    for file, service in CLIENTS.items():
        wanted = called(file, service)
        assert wanted, f"{file} calls nothing any more"
        assert wanted <= granted, file


def test_no_other_file_of_the_control_plane_calls_aws() -> None:
    makes = re.compile(r"boto3\.client\(|session\.client\(|\.get_paginator\(")
    found = {
        str(path.relative_to(ROOM)) for path in ROOM.rglob("*.py") if makes.search(path.read_text())
    }
    assert found <= CLIENTS.keys()
