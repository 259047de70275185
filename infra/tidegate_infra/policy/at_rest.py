"""What runs when nobody asks, and what it costs.

Only what is billed by the hour: data, requests and storage come on top and with use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate_infra.policy.declared import Declared, of_type

HOURS_PER_MONTH = 730
"""As AWS's own calculator has it: 8,760 hours of a year, by twelve."""

Prices = Mapping[str, float]
"""USD per hour of an instance type (`ml.g6.xlarge`, `db.t4g.medium`) or of one of `UNITS`."""

VCPU, GIB, BALANCER = "fargate-vcpu", "fargate-gib", "alb"
NETWORK_ENDPOINT, WAY_OUT = "interface-endpoint", "nat-gateway"
UNITS = (VCPU, GIB, BALANCER, NETWORK_ENDPOINT, WAY_OUT)
"""What is billed by the hour and is no instance; an interface endpoint in one zone."""

TARGET = "aws:appautoscaling/target:Target"
CONFIG = "aws-native:sagemaker:EndpointConfig"
ENDPOINT = "aws:sagemaker/endpoint:Endpoint"
SERVICE = "aws:ecs/service:Service"
TASK = "aws:ecs/taskDefinition:TaskDefinition"


@dataclass(frozen=True)
class Running:
    """So many of one thing that is billed by the hour."""

    resource: Declared
    unit: str
    count: float

    def monthly_usd(self, prices: Prices) -> float | None:
        """None where the price is not known; nothing costs nothing whatever the price."""
        if self.count == 0:
            return 0.0
        price = prices.get(self.unit)
        return None if price is None else price * self.count * HOURS_PER_MONTH


def at_rest(resources: Sequence[Declared]) -> list[Running]:
    """Everything that is billed by the hour, at its least."""
    return [
        running
        for resource in resources
        for running in OF_TYPE.get(resource.type, _nothing)(resource, resources)
    ]


def _nothing(_: Declared, __: Sequence[Declared]) -> Iterator[Running]:
    return iter(())


def _variants(config: Declared, resources: Sequence[Declared]) -> Iterator[Running]:
    """Instances of an endpoint: of managed scaling the least, else what a target leaves."""
    for variant in config.inputs.get("productionVariants", []):
        managed = variant.get("managedInstanceScaling")
        least = (
            managed["minInstanceCount"]
            if managed
            else _least_of_variant(config, variant, resources)
        )
        yield Running(config, variant["instanceType"], least)


def _least_of_variant(config: Declared, variant: Any, resources: Sequence[Declared]) -> float:
    names = [
        each.inputs.get("name")
        for each in of_type(resources, ENDPOINT)
        if each.refers_to(config, "endpointConfigName")
    ]
    ids = {f"endpoint/{name}/variant/{variant['variantName']}" for name in names}
    for target in of_type(resources, TARGET):
        if target.inputs.get("resourceId") in ids:
            return float(target.inputs["minCapacity"])
    return float(variant["initialInstanceCount"])


def _batch_instances(environment: Declared, _: Sequence[Declared]) -> Iterator[Running]:
    """Batch counts vCPUs; at least one instance runs wherever that is not zero."""
    compute = environment.inputs["computeResources"]
    yield Running(environment, compute["instanceTypes"][0], 1 if compute["minVcpus"] else 0)


def _database(instance: Declared, _: Sequence[Declared]) -> Iterator[Running]:
    copies = 2 if instance.inputs.get("multiAz") else 1
    yield Running(instance, str(instance.inputs["instanceClass"]), copies)


def _tasks(service: Declared, resources: Sequence[Declared]) -> Iterator[Running]:
    for task in of_type(resources, TASK):
        if service.refers_to(task, "taskDefinition"):
            count = service.inputs.get("desiredCount", 1)
            yield Running(service, VCPU, count * int(task.inputs["cpu"]) / 1024)
            yield Running(service, GIB, count * int(task.inputs["memory"]) / 1024)


def _balancer(balancer: Declared, _: Sequence[Declared]) -> Iterator[Running]:
    yield Running(balancer, BALANCER, 1)


def _network_endpoint(endpoint: Declared, _: Sequence[Declared]) -> Iterator[Running]:
    if endpoint.inputs.get("vpcEndpointType") == "Interface":
        yield Running(endpoint, NETWORK_ENDPOINT, len(endpoint.inputs.get("subnetIds", [])))


def _way_out(gateway: Declared, _: Sequence[Declared]) -> Iterator[Running]:
    yield Running(gateway, WAY_OUT, 1)


OF_TYPE: dict[str, Callable[[Declared, Sequence[Declared]], Iterator[Running]]] = {
    CONFIG: _variants,
    "aws:batch/computeEnvironment:ComputeEnvironment": _batch_instances,
    "aws:rds/instance:Instance": _database,
    SERVICE: _tasks,
    "aws:lb/loadBalancer:LoadBalancer": _balancer,
    "aws:ec2/natGateway:NatGateway": _way_out,
    "aws:ec2/vpcEndpoint:VpcEndpoint": _network_endpoint,
}
