"""A deployment, declared in a stack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi

from tidegate.spec import (
    HardwareSpec,
    Mode,
    ModelSpec,
    RolloutSpec,
    RuntimeSpec,
    ScalingSpec,
    SloSpec,
)
from tidegate_infra.provider.deployments import OUTPUTS, SHAPE, TOKEN, WAIT
from tidegate_infra.resources.properties import Part, properties


class ModelDeployment(pulumi.CustomResource):
    """A model and how it is served.

        smol = ModelDeployment(
            "smol",
            model="hf://org/name",
            mode="serverless",
            scaling=ScalingSpec(max_replicas=4),
        )
        pulumi.export("model", smol.name)

    Each part is a spec, or a mapping with its fields where a value is another resource's output.
    The deployment is named like the resource unless `name` says otherwise. A change of `name`,
    `mode` or the model's task replaces it; any other is a new revision of the same deployment, and
    with `wait_for_ready` a step is done when that serves. `custom_timeouts` bound the wait; ten
    minutes when absent.
    """

    name: pulumi.Output[str]
    """What requests put into `model`."""
    generation: pulumi.Output[float]
    """Rises by one with each changed declaration."""
    etag: pulumi.Output[str]
    """The version that the stack knows."""

    def __init__(
        self,
        resource_name: str,
        *,
        model: pulumi.Input[str | ModelSpec | Mapping[str, Any]],
        mode: pulumi.Input[Mode | str],
        name: pulumi.Input[str] | None = None,
        runtime: Part[RuntimeSpec] | None = None,
        hardware: Part[HardwareSpec] | None = None,
        scaling: Part[ScalingSpec] | None = None,
        slo: Part[SloSpec] | None = None,
        rollout: Part[RolloutSpec] | None = None,
        labels: pulumi.Input[Mapping[str, pulumi.Input[str]]] | None = None,
        wait_for_ready: pulumi.Input[bool] = True,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        declared = {
            "name": name,
            "model": model,
            "mode": mode,
            "runtime": runtime,
            "hardware": hardware,
            "scaling": scaling,
            "slo": slo,
            "rollout": rollout,
            "labels": labels,
        }
        props = dict.fromkeys(OUTPUTS) | properties(declared, SHAPE) | {WAIT: wait_for_ready}
        super().__init__(TOKEN, resource_name, props, opts)

    @property
    def base_url(self) -> pulumi.Output[str]:
        """For OpenAI clients."""
        url: pulumi.Output[str] = self.__dict__["baseUrl"]
        return url

    @property
    def deployment_id(self) -> pulumi.Output[str]:
        """The platform's own id; a replacement has a new one."""
        own: pulumi.Output[str] = self.__dict__["deploymentId"]
        return own
