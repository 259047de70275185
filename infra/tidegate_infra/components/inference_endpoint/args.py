"""What an inference endpoint is made from: one typed object for the four modes."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate_infra.components.inference_endpoint.fields import EndpointFields
from tidegate_infra.components.inference_endpoint.limits import issues_of
from tidegate_infra.components.inference_endpoint.rules import broken_rules
from tidegate_infra.errors import InvalidArguments


@dataclass(frozen=True, kw_only=True)
class InferenceEndpointArgs(EndpointFields):
    """`EndpointFields` that fit together. Raises `InvalidArguments` naming every field at fault."""

    def __post_init__(self) -> None:
        issues = [*issues_of(self), *broken_rules(self)]
        if issues:
            raise InvalidArguments(f"InferenceEndpoint {self.name!r}", issues)
