"""The Pulumi program of a deployment's stack: an inference endpoint for each of its revisions.

Loaded only when a stack is touched: it needs the extra `infra`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tidegate.protocol.replica import ReplicaConfig
from tidegate.spec import Mode
from tidegate_controlplane.domain.footprint import host_bytes
from tidegate_controlplane.provision.aws.names import component_name
from tidegate_controlplane.provision.base import Launch, StartFailed
from tidegate_controlplane.provision.configuration import planned_fields
from tidegate_controlplane.settings import AwsSettings

if TYPE_CHECKING:
    from tidegate_infra.components.inference_endpoint.args import InferenceEndpointArgs

MIB = 1024 * 1024
LEAST_MB = 128
"""That SageMaker reserves for a copy."""
BROUGHT = "/opt/ml/additional-model-data-sources"
"""Where SageMaker puts what it brings beside the model, each under the name of its channel."""
BESIDE = ("draft_model", "heads")
"""What speculation reads beside the model: fields of the declaration, and channels."""
_SAGEMAKERS_OWN = frozenset({"source", "revision", "source_digest", "device", "threads", "drain_s"})
"""It brings the model and the devices, and says when a container must end. The digest of a model
in S3 is made of S3's ETags, which a container that gets the files does not see."""
_UNSAID = {
    name: ReplicaConfig.model_fields[name].default for name in ("tensor_parallel", "max_adapters")
}
"""Not told where it is the default: another variable would touch every endpoint that there is."""
Program = Callable[[], None]
Revisions = Mapping[str, Launch]
"""By revision id, a launch of any of its replicas."""


def program_of(settings: AwsSettings, revisions: Revisions) -> Program:
    """What declares the revisions. Raises StartFailed when one of them cannot be."""
    declared = {key: arguments(settings, launch) for key, launch in revisions.items()}

    def declare() -> None:
        from tidegate_infra.components.inference_endpoint.endpoint import InferenceEndpoint

        for args in declared.values():
            InferenceEndpoint(args.name, args)

    return declare


def arguments(settings: AwsSettings, launch: Launch) -> InferenceEndpointArgs:
    """Raises StartFailed naming every field that AWS would refuse."""
    from tidegate_infra.components.inference_endpoint.args import InferenceEndpointArgs
    from tidegate_infra.components.inference_endpoint.fields import ScaledBy
    from tidegate_infra.errors import InvalidArguments

    plan, offer = launch.plan, launch.plan.offer
    if offer is None:
        raise StartFailed("no instance type is planned for it; declare the deployment again")
    try:
        return InferenceEndpointArgs(
            name=component_name(settings, launch.revision_id),
            mode=Mode.REALTIME if plan.min_replicas else Mode.SERVERLESS,
            image=settings.image,
            artifact_url=artifact_url(settings, launch),
            additional_urls=additional_urls(launch),
            execution_role_arn=settings.execution_role_arn,
            subnet_ids=settings.subnets,
            security_group_ids=settings.security_groups,
            kms_key_arn=settings.kms_key,
            instance_type=offer.instance_type,
            memory_mb=max(LEAST_MB, math.ceil(host_bytes(plan) / MIB)),
            accelerators=offer.gpus,
            cpu=plan.threads or 1,
            copies_per_instance=offer.replicas,
            min_copies=plan.min_replicas,
            max_copies=plan.max_replicas,
            max_concurrency=plan.max_sequences,
            environment=environment(launch),
            scaled_by=ScaledBy.TIDEGATE,
            tags={"tidegate:deployment": launch.deployment_id, "tidegate:model": launch.model_name},
        )
    except InvalidArguments as error:
        raise StartFailed(str(error)) from error


def artifact_url(settings: AwsSettings, launch: Launch) -> str:
    """Where SageMaker finds the model. Raises StartFailed when that is not in S3."""
    if not launch.source.startswith("s3://"):
        raise StartFailed(
            f"model.source: {launch.source!r} cannot be reached from AWS; copy it there, "
            f"`aws s3 sync DIRECTORY {settings.artifacts.rstrip('/')}/{launch.model_name}/`, "
            "and name that address"
        )
    return launch.source.rstrip("/") + "/"


def additional_urls(launch: Launch) -> dict[str, str]:
    """What SageMaker brings beside the model, by channel; a plan takes S3 alone."""
    asked = launch.plan.speculation
    given = asked.model_dump(include=set(BESIDE), exclude_none=True) if asked else {}
    return {channel: source.rstrip("/") + "/" for channel, source in given.items()}


def environment(launch: Launch) -> dict[str, str]:
    """What the image is told of its plan: fields of `ReplicaConfig`, in upper case."""
    told = planned_fields(launch)
    told |= _as_brought(told, launch)
    return {
        f"TIDEGATE_{name.upper()}": _as_text(value)
        for name, value in told.items()
        if value and name not in _SAGEMAKERS_OWN and value != _UNSAID.get(name)
    }


def _as_brought(told: Mapping[str, Any], launch: Launch) -> dict[str, Any]:
    """What a container is told otherwise, since all that it reads is brought to it."""
    there = {channel: f"{BROUGHT}/{channel}" for channel in additional_urls(launch)}
    asked, draft = told["speculation"], told["draft"]
    return {
        "speculation": asked and asked.model_copy(update=there),
        "draft": draft and draft.model_copy(update={"source_digest": None}),
    }


def _as_text(value: Any) -> str:
    is_object = isinstance(value, BaseModel)
    return value.model_dump_json(exclude_none=True) if is_object else str(value)
