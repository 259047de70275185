"""The one key that everything of a platform is encrypted with."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi_aws import kms

from tidegate_infra.components.platform.args import PlatformArgs
from tidegate_infra.components.statement import document

USE = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
SPEAK = ["kms:Decrypt", "kms:GenerateDataKey*"]
"""What an encrypted topic asks of who publishes there."""
NOTIFIERS = ["budgets.amazonaws.com", "cloudwatch.amazonaws.com"]
"""Services that speak on the platform's topics, for this account only."""
EVENTS = "events.amazonaws.com"
"""EventBridge speaks there too; AWS documents no condition that it could be held to."""


def platform_key(args: PlatformArgs, parent: pulumi.Resource) -> kms.Key:
    """A key that rotates every year, under an alias of the platform's name."""
    opts = pulumi.ResourceOptions(parent=parent)
    key = kms.Key(
        args.name,
        description=f"{args.name}: data at rest",
        enable_key_rotation=True,
        deletion_window_in_days=30,
        policy=document(_account(args), _disks(args), _logs(args), _notices(args), _events()),
        tags=args.tags,
        opts=opts,
    )
    kms.Alias(args.name, name=f"alias/{args.name}", target_key_id=key.key_id, opts=opts)
    return key


def _account(args: PlatformArgs) -> dict[str, Any]:
    """Rights on the key are given by roles; without this nobody could ever change it."""
    principal = {"AWS": f"arn:aws:iam::{args.account_id}:root"}
    return _statement("Account", principal, ["kms:*"])


def _disks(args: PlatformArgs) -> dict[str, Any]:
    """Whoever starts instances in the account, since service-linked roles may not exist yet."""
    condition = {
        "StringEquals": {
            "kms:CallerAccount": args.account_id,
            "kms:ViaService": f"ec2.{args.region}.amazonaws.com",
        }
    }
    return _statement("Disks", {"AWS": "*"}, [*USE, "kms:CreateGrant"], condition)


def _logs(args: PlatformArgs) -> dict[str, Any]:
    context = {"kms:EncryptionContext:aws:logs:arn": args.arn("logs", "log-group:*")}
    principal = {"Service": f"logs.{args.region}.amazonaws.com"}
    return _statement("Logs", principal, USE, {"ArnLike": context})


def _notices(args: PlatformArgs) -> dict[str, Any]:
    ours = {"StringEquals": {"aws:SourceAccount": args.account_id}}
    return _statement("Notices", {"Service": NOTIFIERS}, SPEAK, ours)


def _events() -> dict[str, Any]:
    return _statement("Events", {"Service": EVENTS}, SPEAK)


def _statement(
    sid: str, principal: Any, actions: list[str], condition: Any | None = None
) -> dict[str, Any]:
    """In a key's policy, the resource `*` is the key."""
    made: dict[str, Any] = {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": principal,
        "Action": actions,
        "Resource": "*",
    }
    return made | ({"Condition": condition} if condition else {})
