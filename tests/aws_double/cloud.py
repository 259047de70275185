"""What Pulumi's providers for AWS would make, invented, but for components, which the double runs.

The engine and the cloud are doubles; the program, the components and the Automation API are real.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.aws_double.control import SageMaker
from tests.infra_engine.plugins import InventedCloud
from tests.infra_engine.wire import plain, revealed

COMPONENT, MODEL = "aws-native:sagemaker:InferenceComponent", "aws:sagemaker/model:Model"


@dataclass
class SageMakerCloud(InventedCloud):
    """Both providers in one: `aws` and `aws-native`."""

    sagemaker: SageMaker = field(default_factory=SageMaker)
    behaviours: dict[str, str] = field(default_factory=dict)
    """What the played replica is to do, by the name of the model."""
    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What a container of the model is made of, by the same name."""

    def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = super().Create(request, context)
        inputs = revealed(plain(request.properties))
        kind, name = _kind(request.urn), request.urn.rpartition("::")[2]
        if kind == MODEL:
            (source,) = inputs["primaryContainer"]["modelDataSource"]["s3DataSources"]
            self.behaviours[name] = source["s3Uri"].rstrip("/").rpartition("/")[2]
            self.containers[name] = inputs["primaryContainer"]
        if kind == COMPONENT and not request.preview:
            copies = int(inputs["runtimeConfig"]["copyCount"])
            made = self.sagemaker.create(
                inputs["inferenceComponentName"], self.behaviours[name], copies
            )
            self.sagemaker.on_loop(made)
        return answer

    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        if _kind(request.urn) == COMPONENT:
            name = request.urn.rpartition("::")[2]
            self.sagemaker.on_loop(self.sagemaker.delete(name))
        return super().Delete(request, context)


def _kind(urn: str) -> str:
    return urn.split("::")[-2].rpartition("$")[2]
