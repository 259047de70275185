"""One component for the four modes."""

from __future__ import annotations

import pulumi

from tidegate.spec import Mode
from tidegate_infra.components.inference_endpoint.args import InferenceEndpointArgs
from tidegate_infra.components.inference_endpoint.asynchronous import AsyncEndpoint
from tidegate_infra.components.inference_endpoint.batch import BatchEndpoint
from tidegate_infra.components.inference_endpoint.realtime import RealtimeEndpoint
from tidegate_infra.components.inference_endpoint.serverless import ServerlessEndpoint

OF_MODE: dict[Mode, type[RealtimeEndpoint | ServerlessEndpoint | AsyncEndpoint | BatchEndpoint]] = {
    Mode.REALTIME: RealtimeEndpoint,
    Mode.SERVERLESS: ServerlessEndpoint,
    Mode.ASYNC: AsyncEndpoint,
    Mode.BATCH: BatchEndpoint,
}


class InferenceEndpoint(pulumi.ComponentResource):
    """A model served in the mode that its arguments name; the mode's component is its child.

    Raises `InvalidArguments` when the arguments cannot be.
    """

    endpoint_name: pulumi.Output[str | None]
    """Of the SageMaker endpoint; None for batch."""
    component_name: pulumi.Output[str | None]
    """Of the inference component; None for async and batch."""
    job_queue_arn: pulumi.Output[str | None]
    """Where jobs are submitted; only batch."""
    job_definition_arn: pulumi.Output[str | None]

    def __init__(
        self, name: str, args: InferenceEndpointArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("tidegate:aws:InferenceEndpoint", name, None, opts)
        # What AWS names by itself begins with the resource's name here, and roles go by the prefix.
        served = OF_MODE[args.mode](args.name, args, pulumi.ResourceOptions(parent=self))
        none: pulumi.Output[None] = pulumi.Output.from_input(None)
        self.endpoint_name = getattr(served, "endpoint_name", none)
        self.component_name = getattr(served, "component_name", none)
        self.job_queue_arn = getattr(served, "job_queue_arn", none)
        self.job_definition_arn = getattr(served, "job_definition_arn", none)
        self.register_outputs(
            {
                "endpointName": self.endpoint_name,
                "componentName": self.component_name,
                "jobQueueArn": self.job_queue_arn,
                "jobDefinitionArn": self.job_definition_arn,
            }
        )
