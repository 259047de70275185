"""What is called how in AWS, so that a later control plane finds what an earlier one made."""

from __future__ import annotations

from collections.abc import Iterable

from tidegate_controlplane.gateway.sagemaker import Address
from tidegate_controlplane.settings import AwsSettings


def stack_name(settings: AwsSettings, deployment_id: str) -> str:
    """Of a deployment's stack."""
    return f"{settings.name}-{_plain(deployment_id)}"


def component_name(settings: AwsSettings, revision_id: str) -> str:
    """Of a revision's inference component, and of the endpoint that hosts it."""
    return f"{settings.name}-{_plain(revision_id)}"


def address_of(settings: AwsSettings, component: str) -> Address:
    """Where a component is asked."""
    return Address(settings.region, component, component)


def orphans(settings: AwsSettings, stacks: Iterable[str], living: Iterable[str]) -> list[str]:
    """The stacks whose deployment is not among the ids `living`."""
    known = {stack_name(settings, deployment_id) for deployment_id in living}
    return sorted(set(stacks) - known)


def is_ours(settings: AwsSettings, name: str) -> bool:
    """Whether something bears the name of this installation."""
    return name.startswith(f"{settings.name}-")


def _plain(key: str) -> str:
    """An id as AWS takes it: `dep_01K…` becomes `dep-01k…`."""
    return key.lower().replace("_", "-")
