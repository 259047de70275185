"""Arguments that are whole, one set per mode; a test changes what it is about."""

from __future__ import annotations

import base64
from typing import Any

from tidegate.protocol.api_keys import new_key
from tidegate.spec import Mode
from tidegate_infra.components.inference_endpoint.args import InferenceEndpointArgs
from tidegate_infra.components.inference_endpoint.fields import ScaledBy
from tidegate_infra.components.platform.args import PlatformArgs

KEY = "arn:aws:kms:eu-central-1:123456789012:key/11111111-2222-3333-4444-555555555555"
ROLE = "arn:aws:iam::123456789012:role/tidegate-execution"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:tidegate-alarms"
IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/tidegate/runtime@sha256:" + "a" * 64
CERTIFICATE = "arn:aws:acm:eu-central-1:123456789012:certificate/1"
ADMIN_KEY = new_key()
PEPPER = base64.b64encode(bytes(range(32))).decode()

OF_MODE: dict[Mode, dict[str, Any]] = {
    Mode.REALTIME: {"min_copies": 1, "max_copies": 4},
    Mode.SERVERLESS: {"max_copies": 4},
    Mode.ASYNC: {"max_copies": 3, "payload_url": "s3://payloads/async/"},
    Mode.BATCH: {
        "instance_type": "g6.xlarge",
        "max_copies": 2,
        "payload_url": "s3://payloads/batch/",
    },
}


def endpoint_args(mode: Mode, **changes: Any) -> InferenceEndpointArgs:
    """Arguments for one endpoint of a mode."""
    values: dict[str, Any] = {
        "name": "tidegate-smol",
        "mode": mode,
        "image": IMAGE,
        "artifact_url": "s3://artifacts/smol/",
        "execution_role_arn": ROLE,
        "subnet_ids": ["subnet-a", "subnet-b"],
        "security_group_ids": ["sg-1"],
        "kms_key_arn": KEY,
        "instance_type": "ml.g6.xlarge",
        "memory_mb": 12_288,
        "alarm_topic_arn": TOPIC,
        **OF_MODE[mode],
        **changes,
    }
    values["scaled_by"] = ScaledBy(values.get("scaled_by", "aws"))
    return InferenceEndpointArgs(**values)


def platform_args(**changes: Any) -> PlatformArgs:
    """Arguments for a platform."""
    values: dict[str, Any] = {
        "name": "tidegate",
        "account_id": "123456789012",
        "region": "eu-central-1",
        "availability_zones": ["eu-central-1a", "eu-central-1b"],
        "certificate_arn": CERTIFICATE,
        "control_plane_image": IMAGE,
        "database_password": "correcthorsebattery",
        "pepper": PEPPER,
        "admin_key": ADMIN_KEY,
        "alarm_emails": ["ops@example.org"],
        "monthly_budget_usd": 900,
        "runtime_image": IMAGE,
        "settings": {"aws": {"drift_every_s": 60.0}},
        **changes,
    }
    return PlatformArgs(**values)
