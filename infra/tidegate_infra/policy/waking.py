"""Whatever rests at zero has something that wakes it.

Target tracking cannot leave zero. So a target of capacity 0 needs a step policy for the same
resource, and an alarm that calls it on the metric that AWS has for work without capacity. Copies
that a control plane owns need none: it is their tag that says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tidegate_infra.policy.declared import Declared, of_type
from tidegate_infra.policy.finding import Finding

TARGET = "aws:appautoscaling/target:Target"
POLICY = "aws:appautoscaling/policy:Policy"
ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
CONFIG = "aws-native:sagemaker:EndpointConfig"
ENDPOINT = "aws:sagemaker/endpoint:Endpoint"
COMPONENT = "aws-native:sagemaker:InferenceComponent"

WAKES_ON = {
    "sagemaker:inference-component:DesiredCopyCount": (
        "NoCapacityInvocationFailures",
        "InferenceComponentName",
    ),
    "sagemaker:variant:DesiredInstanceCount": ("HasBacklogWithoutCapacity", "EndpointName"),
}
"""Scalable dimension → the metric that tells of work without capacity, and its dimension."""
TIDEGATE_SCALES = {"key": "tidegate:scaled-by", "value": "tidegate"}


def waking_findings(resources: Sequence[Declared]) -> Iterator[Finding]:
    """Every target, and every inference component, that would sleep for ever."""
    targets = of_type(resources, TARGET)
    for target in targets:
        dimension = target.inputs.get("scalableDimension")
        if target.inputs.get("minCapacity") == 0 and dimension in WAKES_ON:
            said = _why_it_sleeps(target, resources)
            if said:
                yield Finding("waking", str(target), said)
    registered = {target.inputs.get("resourceId") for target in targets}
    for component in _components_from_zero(resources):
        resource_id = f"inference-component/{component.inputs.get('inferenceComponentName')}"
        owned = TIDEGATE_SCALES in component.inputs.get("tags", [])
        if resource_id not in registered and not owned:
            said = (
                f"nothing wakes {resource_id} from zero; register a scalable target for it, "
                "or set scaled_by='tidegate' and let a control plane do it"
            )
            yield Finding("waking", str(component), said)


def _why_it_sleeps(target: Declared, resources: Sequence[Declared]) -> str | None:
    """What is missing between work and the first capacity; None when nothing is."""
    resource_id = target.inputs["resourceId"]
    steps = [policy for policy in of_type(resources, POLICY) if _steps_up(policy, target)]
    if not steps:
        return f"nothing wakes {resource_id} from zero; add a step policy for it, and an alarm"
    alarms = [alarm for alarm in of_type(resources, ALARM) if _watches(alarm, target)]
    if not any(alarm.refers_to(step, "alarmActions") for alarm in alarms for step in steps):
        metric, _ = WAKES_ON[target.inputs["scalableDimension"]]
        return (
            f"nothing wakes {resource_id} from zero; let an alarm on {metric} of the same name "
            f"call the step policy {steps[0].name!r}"
        )
    return None


def _steps_up(policy: Declared, target: Declared) -> bool:
    """Whether a policy adds capacity to the target when it is called."""
    if policy.inputs.get("policyType") != "StepScaling":
        return False
    if any(
        policy.inputs.get(key) != target.inputs.get(key)
        for key in ("serviceNamespace", "resourceId", "scalableDimension")
    ):
        return False
    steps = policy.inputs.get("stepScalingPolicyConfiguration", {}).get("stepAdjustments", [])
    return any(step.get("scalingAdjustment", 0) > 0 for step in steps)


def _watches(alarm: Declared, target: Declared) -> bool:
    """Whether an alarm rings on work without capacity of what the target scales."""
    metric, dimension = WAKES_ON[target.inputs["scalableDimension"]]
    _, name, *_ = target.inputs["resourceId"].split("/")
    return (
        alarm.inputs.get("metricName") == metric
        and alarm.inputs.get("namespace") == "AWS/SageMaker"
        and alarm.inputs.get("dimensions") == {dimension: name}
        and alarm.inputs.get("actionsEnabled", True) is True
    )


def _components_from_zero(resources: Sequence[Declared]) -> Iterator[Declared]:
    """Inference components on endpoints that may have no instance."""
    configs = [config for config in of_type(resources, CONFIG) if _may_be_empty(config)]
    endpoints = of_type(resources, ENDPOINT)
    for component in of_type(resources, COMPONENT):
        hosts = [each for each in endpoints if component.refers_to(each, "endpointName")]
        if any(host.refers_to(config) for host in hosts for config in configs):
            yield component


def _may_be_empty(config: Declared) -> bool:
    return any(
        variant.get("managedInstanceScaling", {}).get("minInstanceCount") == 0
        for variant in config.inputs.get("productionVariants", [])
    )
