"""What a platform is made from."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi

from tidegate.spec import SpecIssue
from tidegate_infra.components.platform.bounds import (
    BOUNDS,
    bound_issues,
    class_issues,
    fargate_issues,
    hearer_issues,
)
from tidegate_infra.components.platform.images import image_issues
from tidegate_infra.components.tags import tag_issues
from tidegate_infra.errors import InvalidArguments

NAME = re.compile(r"^(?=.{3,20}$)(?!internal-)[a-z][a-z0-9]*(-[a-z0-9]+)*$")
"""RDS and ECR take no two hyphens in a row; a load balancer is not called `internal-…`."""
CERTIFICATE = "arn:aws:acm:{region}:"
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
    """Prefix of everything: 3 to 20 lower-case letters, digits and single hyphens."""
    account_id: str
    region: str
    availability_zones: Sequence[str]
    """Two at least; the database and the load balancer need them."""
    certificate_arn: pulumi.Input[str]
    """Of ACM, for the load balancer's TLS."""
    control_plane_image: pulumi.Input[str]
    """In ECR of this region, unless there is a way to the internet.
    It has a shell, Python with `tidegate[controlplane,postgres,infra]`, and declares the volumes
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
    batch_hosts: bool = True
    """Hosts of endpoints of mode batch may stand in the network, which takes three more VPC
    endpoints in each zone. False where there is no such endpoint saves them."""
    internal: bool = True
    """False puts the load balancer on the internet, for `allowed_cidrs`."""
    control_planes: int = 2
    """0 makes everything else: for the first `up`, when the repositories have no image yet."""
    control_plane_cpu: int = 1024
    """In Fargate's units: 1,024 are one vCPU."""
    control_plane_memory_mb: int = 4096
    spool_gb: int = 50
    """Disk of a control plane: bodies and parts of tables pass through it."""
    runtime_image: pulumi.Input[str] | None = None
    """In ECR of this region. With it, control planes host models on SageMaker by themselves
    (`provisioner: aws`)."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Sections of the control plane's settings file; their fields are over the platform's own."""
    database_class: str = "db.t4g.medium"
    database_gb: int = 50
    backup_days: int = 14
    protect: bool = True
    """Database and load balancer refuse to be deleted, and so do buckets and repositories that hold
    something. To be rid of the platform, set False, `up`, then destroy: what it holds goes with it,
    but for a last snapshot of the database."""
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
        said = (
            "must be 3 to 20 lower-case letters, digits and single hyphens, a letter first, "
            "and not begin with internal-"
        )
        yield SpecIssue("name", args.name, said)
    if not ACCOUNT.match(args.account_id):
        said = "must be 12 digits; `aws sts get-caller-identity` prints them"
        yield SpecIssue("account_id", args.account_id, said)
    if not REGION.match(args.region):
        yield SpecIssue(
            "region", args.region, "must be a region of the partition `aws`, such as eu-central-1"
        )
    yield from _zone_issues(args)
    yield from _network_issues(args)
    yield from bound_issues({name: getattr(args, name) for name in BOUNDS})
    yield from fargate_issues(args.control_plane_cpu, args.control_plane_memory_mb)
    yield from class_issues(args.database_class)
    yield from hearer_issues(args.alarm_emails)
    yield from tag_issues(args.tags)
    if REGION.match(args.region):
        yield from _place_issues(args)


def _place_issues(args: PlatformArgs) -> Iterator[SpecIssue]:
    """Of what must be in the platform's region; silent on outputs, which are known later."""
    certificate = args.certificate_arn
    if isinstance(certificate, str) and not certificate.startswith(
        CERTIFICATE.format(region=args.region)
    ):
        said = f"must be a certificate of ACM in {args.region}, where the load balancer is"
        yield SpecIssue("certificate_arn", certificate, said)
    if not args.internet:
        remedy = "a closed network pulls from no other place; push it there, or set internet=True"
        image = args.control_plane_image
        yield from image_issues("control_plane_image", image, args.region, remedy=remedy)
    remedy = "SageMaker pulls from no other place; push it there"
    yield from image_issues("runtime_image", args.runtime_image, args.region, remedy=remedy)


def _zone_issues(args: PlatformArgs) -> Iterator[SpecIssue]:
    if len(set(args.availability_zones)) < 2:
        said = "name two zones or more, such as eu-central-1a and eu-central-1b"
        yield SpecIssue("availability_zones", list(args.availability_zones), said)
    for zone in args.availability_zones:
        if not zone.startswith(args.region):
            yield SpecIssue("availability_zones", zone, f"must be a zone of {args.region}")
    most = 2**SUBNET_BITS // (2 if args.internet else 1)
    if not len(set(args.availability_zones)) == len(args.availability_zones) <= most:
        said = f"name each once, and {most} at most"
        yield SpecIssue("availability_zones", list(args.availability_zones), said)


def _network_issues(args: PlatformArgs) -> Iterator[SpecIssue]:
    for name, text in (("cidr", args.cidr), *(("allowed_cidrs", c) for c in args.allowed_cidrs)):
        try:
            network = ipaddress.IPv4Network(text)
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
