"""Who may do what: one role per part, with the rights that it uses and no other.

Names of endpoints begin with the platform's, so a prefix bounds them. Actions are those of the
service authorization reference.
"""

from __future__ import annotations

import pulumi
from pulumi_aws import iam

from tidegate_infra.components.platform.args import PlatformArgs
from tidegate_infra.components.platform.images import repository_arn
from tidegate_infra.components.platform.storage import ENDPOINT_RESULTS
from tidegate_infra.components.statement import Statement, allow, document, trust

PULL = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
USE_KEY = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"]
CLOUD_CONTROL = [
    "cloudformation:CancelResourceRequest",
    "cloudformation:CreateResource",
    "cloudformation:DeleteResource",
    "cloudformation:GetResource",
    "cloudformation:GetResourceRequestStatus",
    "cloudformation:UpdateResource",
]
"""The native provider speaks to Cloud Control, which then acts with the caller's own rights."""
DESCRIBE_NETWORK = [
    "ec2:DescribeDhcpOptions",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVpcs",
]
USE_INTERFACES = [
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
]
HOSTING_KINDS = ("model", "endpoint-config", "endpoint", "inference-component")


class Roles(pulumi.ComponentResource):
    """The roles of control planes, of the agent that starts them, and of hosts of models."""

    task: iam.Role
    """What a control plane runs as."""
    start: iam.Role
    """What ECS starts one with: it pulls, logs, and reads the secrets."""
    execution: iam.Role
    """What containers of models run as, on SageMaker and in batch jobs."""

    def __init__(
        self,
        args: PlatformArgs,
        key_arn: pulumi.Output[str],
        vpc_arn: pulumi.Output[str],
        parent: pulumi.Resource,
    ):
        of_parent = pulumi.ResourceOptions(parent=parent)
        super().__init__("tidegate:aws:Roles", args.name, None, of_parent)
        self._args, self._key_arn = args, key_arn
        execution_arn = f"arn:aws:iam::{args.account_id}:role/{args.name}-execution"
        self.task = self._role("task", "ecs-tasks.amazonaws.com")
        self._may(self.task, "serve", *serving(args))
        self._may(self.task, "host", *hosting(args, execution_arn))
        self._may_use_key(self.task)
        self.start = self._role("start", "ecs-tasks.amazonaws.com")
        self._may(self.start, "start", *starting(args))
        self._may_pull(self.start, args.control_plane_image)
        self._may_use_key(self.start)
        self.execution = self._role(
            "execution", "sagemaker.amazonaws.com", "ecs-tasks.amazonaws.com"
        )
        self._may(self.execution, "run", *running(args))
        self._may_pull(self.execution, args.runtime_image)
        self._may_use_key(self.execution)
        self._may_join(self.execution, vpc_arn)
        self.register_outputs({})

    def _role(self, what: str, *services: str) -> iam.Role:
        return iam.Role(
            f"{self._args.name}-{what}",
            name=f"{self._args.name}-{what}",
            assume_role_policy=trust(*services),
            tags=self._args.tags,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _may(self, role: iam.Role, what: str, *statements: Statement) -> None:
        self._attach(role, what, document(*statements))

    def _may_use_key(self, role: iam.Role) -> None:
        """Grants only where an AWS service asks for one, as for the disk of a host."""
        for_service = {"Bool": {"kms:GrantIsForAWSResource": "true"}}
        self._attach(
            role,
            "key",
            self._key_arn.apply(
                lambda arn: document(
                    allow(USE_KEY, arn), allow("kms:CreateGrant", arn, for_service)
                )
            ),
        )

    def _may_pull(self, role: iam.Role, image: pulumi.Input[str] | None) -> None:
        """From the platform's own repositories, and from the one that the image is in."""
        own = self._args.arn("ecr", f"repository/{self._args.name}/*")

        def rights(address: str | None) -> str:
            other = repository_arn(address)
            return document(
                allow("ecr:GetAuthorizationToken", "*"),
                allow(PULL, [own, other] if other else [own]),
            )

        self._attach(role, "pull", pulumi.Output.from_input(image).apply(rights))

    def _may_join(self, role: iam.Role, vpc_arn: pulumi.Output[str]) -> None:
        self._attach(
            role, "network", vpc_arn.apply(lambda arn: document(*joining(self._args, arn)))
        )

    def _attach(self, role: iam.Role, what: str, policy: pulumi.Input[str]) -> None:
        iam.RolePolicy(
            f"{role.pulumi_resource_name}-{what}",
            role=role.name,
            policy=policy,
            opts=pulumi.ResourceOptions(parent=role),
        )


def serving(args: PlatformArgs) -> list[Statement]:
    """What a control plane does all day: ask endpoints, count copies, keep payloads and states.

    Prices it asks for when somebody refreshes the offers.
    """
    copies = [_named(args, kind) for kind in ("endpoint", "inference-component")]
    buckets = [f"arn:aws:s3:::{args.bucket(kind)}" for kind in ("artifacts", "payloads", "state")]
    return [
        allow(["sagemaker:InvokeEndpoint", "sagemaker:InvokeEndpointWithResponseStream"], copies),
        allow(
            "sagemaker:UpdateInferenceComponentRuntimeConfig", _named(args, "inference-component")
        ),
        allow(["pricing:GetProducts", "ec2:DescribeSpotPriceHistory"], "*"),
        allow(["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"], buckets),
        allow(
            [
                "s3:AbortMultipartUpload",
                "s3:DeleteObject",
                "s3:GetObject",
                "s3:ListMultipartUploadParts",
                "s3:PutObject",
            ],
            [f"{bucket}/*" for bucket in buckets],
        ),
    ]


def hosting(args: PlatformArgs, execution_arn: str) -> list[Statement]:
    """What a control plane does for a deployment's stack: endpoints of its name, their logs."""
    places = [_named(args, kind) for kind in HOSTING_KINDS]
    logs = [
        args.arn("logs", f"log-group:/aws/sagemaker/{place}/{args.name}-*")
        for place in ("Endpoints", "InferenceComponents")
    ]
    passed = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    return [
        allow([f"sagemaker:{action}" for action in _hosting_actions()], places),
        allow(CLOUD_CONTROL, "*"),
        allow("iam:PassRole", execution_arn, passed),
        allow(["logs:DescribeLogGroups", "sagemaker:ListInferenceComponents"], "*"),
        allow(
            [
                "logs:AssociateKmsKey",
                "logs:CreateLogGroup",
                "logs:DeleteLogGroup",
                "logs:FilterLogEvents",
                "logs:ListTagsForResource",
                "logs:PutRetentionPolicy",
                "logs:TagResource",
            ],
            logs,
        ),
    ]


def _hosting_actions() -> list[str]:
    changed = ("Endpoint", "InferenceComponent")
    made = ("Model", "EndpointConfig", *changed)
    return [
        *(f"{verb}{kind}" for verb in ("Create", "Delete", "Describe") for kind in made),
        *(f"Update{kind}" for kind in changed),
        "AddTags",
        "DeleteTags",
        "ListTags",
    ]


def starting(args: PlatformArgs) -> list[Statement]:
    """What ECS does before a control plane runs, beside pulling its image."""
    secrets = [args.arn("secretsmanager", f"secret:{args.name}/*")]
    return [
        allow("secretsmanager:GetSecretValue", secrets),
        allow(
            ["logs:CreateLogStream", "logs:PutLogEvents"],
            args.arn("logs", f"log-group:/tidegate/{args.name}/*"),
        ),
    ]


def running(args: PlatformArgs) -> list[Statement]:
    """What a host of a model does, beside pulling: read, write results, log, and be measured."""
    artifacts = f"arn:aws:s3:::{args.bucket('artifacts')}"
    payloads = f"arn:aws:s3:::{args.bucket('payloads')}"
    namespaces = ["/aws/sagemaker/*", "AWS/SageMaker*"]
    return [
        allow(["s3:GetBucketLocation", "s3:ListBucket"], [artifacts, payloads]),
        allow("s3:GetObject", f"{artifacts}/*"),
        allow(["s3:GetObject", "s3:PutObject"], f"{payloads}/{ENDPOINT_RESULTS}*"),
        allow("sns:Publish", args.arn("sns", f"{args.name}-*")),
        allow(
            "cloudwatch:PutMetricData",
            "*",
            {"StringLike": {"cloudwatch:namespace": namespaces}},
        ),
        allow(
            [
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:DescribeLogStreams",
                "logs:PutLogEvents",
            ],
            args.arn("logs", f"log-group:/aws/sagemaker/*/{args.name}-*"),
        ),
    ]


def joining(args: PlatformArgs, vpc_arn: str) -> list[Statement]:
    """Interfaces of hosts have no name before they are made, so the VPC bounds them.

    One that is about to be made is in no VPC yet: its subnet and its group are.
    """
    here = {"ArnEquals": {"ec2:Vpc": vpc_arn}}
    interfaces = args.arn("ec2", "network-interface/*")
    around = [args.arn("ec2", f"{kind}/*") for kind in ("security-group", "subnet")]
    return [
        allow(DESCRIBE_NETWORK, "*"),
        allow("ec2:CreateNetworkInterface", interfaces),
        allow("ec2:CreateNetworkInterface", around, here),
        allow(USE_INTERFACES, interfaces, here),
    ]


def _named(args: PlatformArgs, kind: str) -> str:
    """Everything of a kind whose name begins with the platform's."""
    return args.arn("sagemaker", f"{kind}/{args.name}-*")
