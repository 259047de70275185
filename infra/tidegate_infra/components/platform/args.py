"""What a platform is made from."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi

from tidegate.spec import SpecIssue
from tidegate_infra.errors import InvalidArguments

NAME = re.compile(r"^[a-z][a-z0-9-]{1,18}[a-z0-9]$")
ACCOUNT = re.compile(r"^[0-9]{12}$")
REGION = re.compile(r"^(?!cn-|us-gov-|us-iso)[a-z]{2}(-[a-z]+)+-[0-9]$")
"""Of AWS's own partition; China and GovCloud name their resources otherwise."""
EVERYONE = "0.0.0.0/0"
SUBNET_BITS = 4
"""A network is cut into 16 parts; every zone takes one, or two with a way to the internet."""


@dataclass(frozen=True, kw_only=True)
class PlatformArgs:
    """One platform in one account and region. Raises `InvalidArguments` naming every fault.

    Account, region and zones are said, not asked for, so that names and rights are whole at
    preview and the guard rails can judge them.
    """

    name: str
    """Prefix of everything: 3 to 20 lower-case letters, digits and hyphens."""
    account_id: str
    region: str
    availability_zones: Sequence[str]
    """Two at least; the database and the load balancer need them."""
    certificate_arn: pulumi.Input[str]
    """Of ACM, for the load balancer's TLS."""
    control_plane_image: pulumi.Input[str]
    """Has a shell, Python with `tidegate[controlplane,postgres,infra]`, and declares the volumes
    /data and /tmp as its user's own: the rest of its file system cannot be written. To host models
    it also has `pulumi` with its AWS plugins, since a closed network downloads none."""
    database_password: pulumi.Input[str]
    """A secret of the stack; letters and digits, 16 or more."""
    pepper: pulumi.Input[str]
    """A secret of the stack: 32 random bytes as base64. Without it no API key works again."""
    admin_key: pulumi.Input[str]
    """A secret of the stack, from `tidegate keys new`: opens the platform as soon as it is there.
    Another one in its place is one more admin key; the former stays until it is revoked."""
    alarm_emails: Sequence[str]
    monthly_budget_usd: int
    """Alarms are sent at 80 % of it, and when the forecast passes it."""
    cidr: str = "10.42.0.0/16"
    allowed_cidrs: Sequence[str] = ()
    """Networks that may call the load balancer, beside the platform's own."""
    internet: bool = False
    """Webhooks and `hf://` sources need a way out; NAT gateways then stand in public subnets."""
    internal: bool = True
    """False puts the load balancer on the internet, for `allowed_cidrs`."""
    control_planes: int = 2
    control_plane_cpu: int = 1024
    """In Fargate's units: 1,024 are one vCPU."""
    control_plane_memory_mb: int = 4096
    spool_gb: int = 50
    """Disk of a control plane: bodies and parts of tables pass through it."""
    runtime_image: pulumi.Input[str] | None = None
    """With it, control planes host models on SageMaker by themselves (`provisioner: aws`)."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Sections of the control plane's settings file; their fields are over the platform's own."""
    database_class: str = "db.t4g.medium"
    database_gb: int = 50
    backup_days: int = 14
    protect: bool = True
    """Database and load balancer refuse to be deleted. Set False, `up`, then destroy."""
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        issues = [*_issues(self)]
        if issues:
            raise InvalidArguments(f"Platform {self.name!r}", issues)

    def arn(self, service: str, resource: str) -> str:
        """An ARN in the platform's account and region."""
        return f"arn:aws:{service}:{self.region}:{self.account_id}:{resource}"

    def bucket(self, kind: str) -> str:
        """A bucket's name; it is unique in the world by the account."""
        return f"{self.name}-{kind}-{self.account_id}"

    def url(self, kind: str, prefix: str) -> str:
        """A place in a bucket."""
        return f"s3://{self.bucket(kind)}/{prefix}"


def _issues(args: PlatformArgs) -> Iterator[SpecIssue]:
    if not NAME.match(args.name):
        said = "must be 3 to 20 lower-case letters, digits and hyphens, a letter first"
        yield SpecIssue("name", args.name, said)
    if not ACCOUNT.match(args.account_id):
        said = "must be 12 digits; `aws sts get-caller-identity` prints them"
        yield SpecIssue("account_id", args.account_id, said)
    if not REGION.match(args.region):
        yield SpecIssue(
            "region", args.region, "must be a region of the partition `aws`, such as eu-central-1"
        )
    if len(set(args.availability_zones)) < 2:
        said = "name two zones or more, such as eu-central-1a and eu-central-1b"
        yield SpecIssue("availability_zones", list(args.availability_zones), said)
    for zone in args.availability_zones:
        if not zone.startswith(args.region):
            yield SpecIssue("availability_zones", zone, f"must be a zone of {args.region}")
    yield from _network_issues(args)
    for name, least in (("control_planes", 1), ("monthly_budget_usd", 1), ("backup_days", 1)):
        if getattr(args, name) < least:
            yield SpecIssue(name, getattr(args, name), f"must be {least} or more")
    if not args.alarm_emails:
        yield SpecIssue("alarm_emails", [], "name somebody who hears the alarms")


def _network_issues(args: PlatformArgs) -> Iterator[SpecIssue]:
    for name, text in (("cidr", args.cidr), *(("allowed_cidrs", c) for c in args.allowed_cidrs)):
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            yield SpecIssue(name, text, f"is no network: {error}")
        else:
            if name == "cidr" and not 16 <= network.prefixlen <= 22:
                yield SpecIssue(name, text, "must be between /16 and /22")
    if args.internal and EVERYONE in args.allowed_cidrs:
        said = "an internal load balancer is not for everybody; name networks, or internal=False"
        yield SpecIssue("allowed_cidrs", EVERYONE, said)
    if not args.internal and not args.internet:
        said = "a load balancer on the internet needs internet=True"
        yield SpecIssue("internal", args.internal, said)
    if not args.internal and not args.allowed_cidrs:
        said = "nobody may call; name the networks that may, or 0.0.0.0/0 for everybody"
        yield SpecIssue("allowed_cidrs", [], said)
