"""A platform on AWS, an endpoint from zero beside it, and what the platform serves.

The deployments are declared once the name of the certificate leads to the platform:

    pulumi up
    pulumi config set url https://tidegate.example.org
    pulumi up
"""

import pulumi

from tidegate.spec import HardwareSpec, Mode, ProvisionerName, ScalingSpec
from tidegate_infra import ApiKey, ModelDeployment, Provider
from tidegate_infra.aws import (
    GuardRails,
    InferenceEndpoint,
    InferenceEndpointArgs,
    Platform,
    PlatformArgs,
    guard,
)

config = pulumi.Config()
region = config.get("region") or "us-west-2"

with guard(GuardRails()):
    platform = Platform(
        "tidegate",
        PlatformArgs(
            name="tidegate",
            account_id=config.require("accountId"),
            region=region,
            availability_zones=[f"{region}a", f"{region}b"],
            certificate_arn=config.require("certificate"),
            control_plane_image=config.require("controlPlaneImage"),
            runtime_image=config.require("runtimeImage"),
            database_password=config.require_secret("databasePassword"),
            pepper=config.require_secret("pepper"),
            admin_key=config.require_secret("adminKey"),
            alarm_emails=[config.require("alarmEmail")],
            monthly_budget_usd=900,
        ),
    )

    # Served by AWS alone: no copy while nobody asks, and an alarm wakes the first.
    InferenceEndpoint(
        "rerank",
        InferenceEndpointArgs(
            name="tidegate-rerank",
            mode=Mode.SERVERLESS,
            image=config.require("runtimeImage"),
            artifact_url=f"{platform.artifacts_url}rerank/",
            execution_role_arn=platform.execution_role_arn,
            subnet_ids=platform.subnet_ids,
            security_group_ids=[platform.inference_security_group_id],
            kms_key_arn=platform.kms_key_arn,
            alarm_topic_arn=platform.alarm_topic_arn,
            instance_type="ml.g6.xlarge",
            memory_mb=12_288,
            max_copies=2,
        ),
    )

url = config.get("url")
if url is not None:
    # Served by the platform, which holds requests while it starts replicas on AWS.
    here = pulumi.ResourceOptions(
        provider=Provider("here", url=url, api_key=config.require_secret("adminKey")),
        depends_on=[platform],
    )
    chat = ModelDeployment(
        "chat",
        model=f"{platform.artifacts_url}chat/",
        mode=Mode.SERVERLESS,
        hardware=HardwareSpec(provisioner=ProvisionerName.AWS),
        scaling=ScalingSpec(max_replicas=4),
        opts=here,
    )
    digest = ModelDeployment(
        "digest",
        model=f"{platform.artifacts_url}chat/",
        mode=Mode.BATCH,
        hardware={"provisioner": "aws"},
        labels={"beside": chat.name},
        opts=here,
    )
    pulumi.export("baseUrl", chat.base_url)
    pulumi.export("key", ApiKey("reader", opts=here).key)

pulumi.export("url", platform.url)
pulumi.export("stateUrl", platform.state_url)
