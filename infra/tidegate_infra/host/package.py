"""What the package for other languages holds."""

from __future__ import annotations

from tidegate_infra.components.inference_endpoint.endpoint import InferenceEndpoint
from tidegate_infra.components.platform.platform import Platform
from tidegate_infra.host.offered import Component, offered

NAME = "tidegate-aws"
COMPONENTS: list[Component] = [offered(Platform), offered(InferenceEndpoint)]
