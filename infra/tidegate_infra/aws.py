"""What a Pulumi program for AWS imports.

from tidegate_infra.aws import InferenceEndpoint, InferenceEndpointArgs
"""

from tidegate_infra.components.inference_endpoint.args import InferenceEndpointArgs
from tidegate_infra.components.inference_endpoint.endpoint import InferenceEndpoint
from tidegate_infra.components.inference_endpoint.fields import ScaledBy
from tidegate_infra.components.platform.args import PlatformArgs
from tidegate_infra.components.platform.platform import Platform
from tidegate_infra.errors import GuardRailsBroken, InfraError, InvalidArguments
from tidegate_infra.policy.guard import guard
from tidegate_infra.policy.rails import GuardRails

__all__ = [
    "GuardRails",
    "GuardRailsBroken",
    "InferenceEndpoint",
    "InferenceEndpointArgs",
    "InfraError",
    "InvalidArguments",
    "Platform",
    "PlatformArgs",
    "ScaledBy",
    "guard",
]
