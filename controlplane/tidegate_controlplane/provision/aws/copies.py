"""The copies of inference components: how many there are, and how many there shall be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tidegate_controlplane.provision.aws.failures import AwsFailed, explain
from tidegate_controlplane.provision.aws.names import is_ours
from tidegate_controlplane.settings import AwsSettings

IN_SERVICE, FAILED = "InService", "Failed"
ABSENT = "could not find"
"""How SageMaker's `ValidationException` says that there is no such thing."""


@dataclass(frozen=True)
class Seen:
    """What SageMaker says of a component."""

    status: str
    desired: int
    current: int
    failure: str | None = None

    @property
    def takes_changes(self) -> bool:
        """SageMaker refuses a change while another is under way."""
        return self.status == IN_SERVICE

    @property
    def why_fewer(self) -> str | None:
        """What keeps it from having the copies it shall have, once that is known."""
        settled = self.status == IN_SERVICE and self.current < self.desired
        if self.status == FAILED:
            return self.failure or "its component has failed, and AWS does not say why"
        return self.failure if settled else None


class Copies:
    """Asks SageMaker's control API. Every method blocks, and raises AwsFailed."""

    def __init__(self, settings: AwsSettings, session: boto3.Session) -> None:
        self._settings = settings
        # Its methods are made at run time, from the service's description.
        self._client: Any = session.client(
            "sagemaker",
            region_name=settings.region,
            config=Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard"}),
        )

    def seen(self, component: str) -> Seen | None:
        """None when there is no such component."""
        with self._explained(component):
            said = None
            with _absent_is_fine():
                said = self._client.describe_inference_component(InferenceComponentName=component)
            if said is None:
                return None
            runtime = said.get("RuntimeConfig", {})
            return Seen(
                status=said["InferenceComponentStatus"],
                desired=runtime.get("DesiredCopyCount", 0),
                current=runtime.get("CurrentCopyCount", 0),
                failure=said.get("FailureReason"),
            )

    def set(self, component: str, number: int) -> None:
        """Ask for so many copies."""
        with self._explained(component):
            self._client.update_inference_component_runtime_config(
                InferenceComponentName=component, DesiredRuntimeConfig={"CopyCount": number}
            )

    def ours(self) -> list[str]:
        """The names of every component of this installation."""
        with self._explained(""):
            pages = self._client.get_paginator("list_inference_components").paginate(
                NameContains=self._settings.name
            )
            found = [each for page in pages for each in page["InferenceComponents"]]
        names = [each["InferenceComponentName"] for each in found]
        return [name for name in names if is_ours(self._settings, name)]

    def unmake(self, urns: Sequence[str]) -> None:
        """End what was begun to be made and is known to no stack: endpoints, and what they host.

        The rest that a stack makes costs nothing and bears names of its own.
        """
        for urn in urns:
            kind, name = urn.split("::")[-2].rpartition("$")[2], urn.rpartition("::")[2]
            if kind.endswith(":InferenceComponent"):
                self.end(name)
            elif kind.endswith(":Endpoint"):
                with self._explained(name), _absent_is_fine():
                    self._client.delete_endpoint(EndpointName=name)

    def end(self, component: str) -> None:
        """Delete a component that takes no change any more; one that is gone is fine."""
        with self._explained(component), _absent_is_fine():
            self._client.delete_inference_component(InferenceComponentName=component)

    @contextmanager
    def _explained(self, component: str) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise AwsFailed(explain(str(error), self._settings, component)) from error


@contextmanager
def _absent_is_fine() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if ABSENT not in str(error).lower():
            raise
