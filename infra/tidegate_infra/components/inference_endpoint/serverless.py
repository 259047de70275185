"""From zero on demand: no copy and no instance at rest, and an alarm that wakes the first."""

from __future__ import annotations

import pulumi

from tidegate_infra.components.inference_endpoint.args import InferenceEndpointArgs
from tidegate_infra.components.inference_endpoint.copies import hosted_copies
from tidegate_infra.components.inference_endpoint.fields import ScaledBy
from tidegate_infra.components.inference_endpoint.realtime import follow_requests, tell_of_failures
from tidegate_infra.components.inference_endpoint.scaling import Wake, wakes


class ServerlessEndpoint(pulumi.ComponentResource):
    """A SageMaker endpoint that rests at zero instances.

    Until the first copy is there, AWS answers errors for several minutes. A Tidegate gateway in
    front holds the request meanwhile, and with `scaled_by="tidegate"` raises the copy count itself.
    """

    endpoint_name: pulumi.Output[str]
    component_name: pulumi.Output[str]

    def __init__(
        self, name: str, args: InferenceEndpointArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("tidegate:aws:ServerlessEndpoint", name, None, opts)
        hosted = hosted_copies(name, args, self)
        if args.scaled_by is ScaledBy.AWS:
            target = follow_requests(name, args, hosted, self)
            refused = Wake(
                "NoCapacityInvocationFailures", {"InferenceComponentName": args.name}, "Sum"
            )
            wakes(name, target, refused)
        tell_of_failures(name, args, self)
        self.endpoint_name = hosted.endpoint.name
        self.component_name = pulumi.Output.from_input(args.name)
        self.register_outputs(
            {"endpointName": self.endpoint_name, "componentName": self.component_name}
        )
