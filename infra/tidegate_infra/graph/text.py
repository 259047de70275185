"""The resources of a program as text: the tree, what rests at which capacity, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tidegate_infra.policy.at_rest import Prices, Running, at_rest
from tidegate_infra.policy.declared import Declared

ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
BATCH = "aws:batch/computeEnvironment:ComputeEnvironment"
CONFIG = "aws-native:sagemaker:EndpointConfig"
TARGET = "aws:appautoscaling/target:Target"


def graph(resources: Sequence[Declared], prices: Prices) -> str:
    """One line per resource under its component, and the month at rest below.

    USD per month of what is billed by the hour; data, requests and storage come with use.
    """
    running = at_rest(resources)
    lines = [*_tree(resources, running), "", *_bill(running, prices)]
    return "\n".join(lines) + "\n"


def _tree(resources: Sequence[Declared], running: Sequence[Running]) -> Iterator[str]:
    """Resources by component, in the order in which they are declared."""
    keys = {resource.key for resource in resources}
    roots = list(dict.fromkeys(each.parent for each in resources if each.parent not in keys))
    for root in roots:
        if root is not None:
            yield root.replace("::", " ")
        yield from _children(root, resources, running, "")


def _children(
    parent: str | None, resources: Sequence[Declared], running: Sequence[Running], indent: str
) -> Iterator[str]:
    own = [resource for resource in resources if resource.parent == parent]
    for at, resource in enumerate(own, start=1):
        last = at == len(own)
        said = [*NOTES.get(resource.type, _nothing)(resource.inputs), *_at_rest(resource, running)]
        note = f"  ({', '.join(said)})" if said else ""
        yield f"{indent}{'└─' if last else '├─'} {_kind(resource)} {resource.name}{note}"
        inner = indent + ("   " if last else "│  ")
        yield from _children(resource.key, resources, running, inner)


def _kind(resource: Declared) -> str:
    """`sagemaker Endpoint` of `aws:sagemaker/endpoint:Endpoint`."""
    _, module, kind = resource.type.split(":")
    return f"{module.split('/')[0]} {kind}"


def _nothing(_: Any) -> Iterator[str]:
    return iter(())


def _scales(target: Any) -> Iterator[str]:
    unit = target["scalableDimension"].rsplit(":Desired", 1)[-1]
    yield f"{target['minCapacity']:g} to {target['maxCapacity']:g} by {unit}"


def _rings(alarm: Any) -> Iterator[str]:
    yield f"on {alarm['metricName']}"


def _holds(config: Any) -> Iterator[str]:
    for variant in config.get("productionVariants", []):
        managed = variant.get("managedInstanceScaling")
        if managed:
            least, most = managed["minInstanceCount"], managed["maxInstanceCount"]
            yield f"{least:g} to {most:g} instances"


def _starts(environment: Any) -> Iterator[str]:
    compute = environment["computeResources"]
    yield f"{compute['minVcpus']:g} to {compute['maxVcpus']:g} vCPUs of {compute['type'].lower()}"


NOTES: dict[str, Callable[[Any], Iterator[str]]] = {
    ALARM: _rings,
    BATCH: _starts,
    CONFIG: _holds,
    TARGET: _scales,
}
"""Type → what its line says of capacity, and of what wakes it."""


def _at_rest(resource: Declared, running: Sequence[Running]) -> Iterator[str]:
    for each in running:
        if each.resource is resource:
            yield f"at rest {each.count:g} × {each.unit}"


def _bill(running: Sequence[Running], prices: Prices) -> Iterator[str]:
    """One line per unit that is billed, then the sum. What has no price is said to have none."""
    counts: dict[str, float] = {}
    for each in running:
        counts[each.unit] = counts.get(each.unit, 0) + each.count
    costs = [(each.monthly_usd(prices), each) for each in running]
    for unit, count in counts.items():
        of_unit = [cost for cost, each in costs if each.unit == unit]
        cost = "no price" if None in of_unit else f"{sum(c or 0 for c in of_unit):.2f} USD"
        yield f"at rest  {count:g} × {unit}: {cost} a month"
    total = sum(cost or 0 for cost, _ in costs)
    more = ", and what has no price" if any(cost is None for cost, _ in costs) else ""
    yield f"at rest  together: {total:.2f} USD a month{more}"
