"""`tidegate:index:ModelDeployment`: a declaration, kept true by the platform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from tidegate import AsyncClient
from tidegate.aio.deployment import AsyncDeployment
from tidegate.errors import (
    ConnectionFailed,
    NotFound,
    PreconditionFailed,
    TidegateError,
)
from tidegate.protocol.resources import DeploymentPhase, DeploymentView
from tidegate.routes.declare import body_of, declaration
from tidegate.spec import DeploymentSpec, SpecIssue
from tidegate_infra.errors import ChangedElsewhere, NameTaken, StartFailed
from tidegate_infra.provider import names
from tidegate_infra.provider.changes import Fixed
from tidegate_infra.provider.findings import judge
from tidegate_infra.provider.sdk_faults import UNKNOWN, has_unknown
from tidegate_infra.provider.shapes import Shape

TOKEN = "tidegate:index:ModelDeployment"
WAIT = "waitForReady"
READY_S = 600.0
GONE_S = 600.0
GONE = (DeploymentPhase.DELETING, DeploymentPhase.DELETED)
SHAPE = Shape(model=DeploymentSpec)

Properties = dict[str, Any]


class DeploymentOutputs(BaseModel):
    """What the platform adds to a declaration."""

    deployment_id: str = Field(description="the platform's own id; a new one after a replacement")
    generation: int = Field(description="rises by one with each changed declaration")
    etag: str = Field(description="the version that the stack knows")
    base_url: str = Field(description="for OpenAI clients; `name` is the model")


OUTPUTS = frozenset(names.camel(name) for name in DeploymentOutputs.model_fields)


@dataclass(frozen=True)
class ModelDeployments:
    """Makes, reads, changes and deletes deployments. Raises TidegateError and InfraError."""

    client: AsyncClient

    secret = frozenset[str]()
    fixed = Fixed(frozenset({"name", "mode", "model.task"}), name="name")

    @staticmethod
    def checked(inputs: Properties, name: str) -> tuple[Properties, list[SpecIssue]]:
        """The inputs in one spelling, or all that is wrong with them.

        Without a `name` the resource's own is taken. Values that are not known yet stay.
        """
        named = {"name": name, **inputs}
        wait = named.pop(WAIT, True)
        if isinstance(named.get("model"), str):
            named["model"] = {"source": named["model"]}
        issues = judge(named, DeploymentSpec)
        if not isinstance(wait, bool) and wait != UNKNOWN:
            issues.append(SpecIssue(WAIT, wait, "must be true or false"))
        if issues or has_unknown(named):
            return {**named, WAIT: wait}, issues
        spec = declaration(names.to_fields(named, SHAPE))
        return {**_declared(spec), WAIT: wait}, []

    @staticmethod
    def compared(properties: Properties) -> Properties:
        """The part of inputs or outputs that is declared, so that a difference is a change."""
        return {key: each for key, each in properties.items() if key not in OUTPUTS | {WAIT}}

    @staticmethod
    def foreseen(inputs: Properties) -> Properties:
        """The outputs of a new one as a preview can tell them."""
        return dict.fromkeys(OUTPUTS, UNKNOWN) | ModelDeployments.compared(inputs)

    async def create(self, inputs: Properties, timeout_s: float) -> tuple[str, Properties]:
        """Id and outputs, once it serves. Raises NameTaken, and StartFailed with what was made."""
        spec = _spec(inputs)
        made = await self._declared_new(spec)
        await self._wait(made, inputs, timeout_s)
        return spec.name, self._outputs(made)

    async def update(
        self, resource_id: str, old: Properties, inputs: Properties, timeout_s: float
    ) -> Properties:
        """The outputs, once it serves. Raises ChangedElsewhere, and StartFailed.

        The same declaration again tries a deployment again that did not start.
        """
        try:
            made = await self.client.apply(_spec(inputs), if_match=old["etag"])
        except PreconditionFailed as refused:
            raise ChangedElsewhere(
                f"{refused}. Someone else changed or deleted deployment {resource_id!r} since this "
                "stack last looked: run `pulumi refresh`, look at the difference, then `pulumi up`"
            ) from None
        await self._wait(made, inputs, timeout_s)
        return self._outputs(made)

    async def read(
        self, resource_id: str, _old: Properties, inputs: Properties
    ) -> tuple[Properties, Properties] | None:
        """Outputs and inputs as they are now; None when it is gone."""
        try:
            found = await self.client.deployments.get(resource_id)
        except NotFound:
            return None
        if found.phase in GONE:
            return None
        now = _declared(found.spec) | {WAIT: inputs.get(WAIT, True)}
        return self._outputs(found), now

    async def delete(self, resource_id: str, timeout_s: float) -> None:
        """Delete it, and return when nothing of it runs any more; also when it is gone already."""
        try:
            await self.client.deployments.delete(resource_id, timeout_s=timeout_s or GONE_S)
        except NotFound:
            return

    async def _declared_new(self, spec: DeploymentSpec) -> AsyncDeployment:
        """What is there of this name is never taken over, but for what this very call has made."""
        try:
            once = self.client.with_options(max_retries=0)
            return await once.apply(spec, replace=False)
        except PreconditionFailed:
            raise NameTaken(
                f"name: there is a deployment {spec.name!r} already, which this stack did not "
                f"make. Take it over with `pulumi import {TOKEN} {spec.name} {spec.name}`, or "
                "choose another name"
            ) from None
        except ConnectionFailed as lost:
            if not lost.sent:
                raise
            return await self._made_unheard(spec, lost)

    async def _made_unheard(self, spec: DeploymentSpec, lost: ConnectionFailed) -> AsyncDeployment:
        try:
            found = await self.client.deployments.get(spec.name)
        except NotFound:
            raise lost from None
        if found.view.generation != 1 or found.spec != spec:
            raise lost
        return found

    async def _wait(self, made: AsyncDeployment, inputs: Properties, timeout_s: float) -> None:
        if not inputs.get(WAIT, True):
            return
        try:
            await made.wait_ready(timeout_s=timeout_s or READY_S)
        except TidegateError as error:
            raise StartFailed(made.name, self._outputs(made), str(error)) from None

    def _outputs(self, seen: AsyncDeployment) -> Properties:
        view: DeploymentView = seen.view
        return {
            **_declared(view.spec),
            "deploymentId": view.id,
            "generation": view.generation,
            "etag": seen.etag,
            "baseUrl": _base_url(self.client),
        }


def _declared(spec: DeploymentSpec) -> Properties:
    """A declaration in the one spelling that is kept and compared."""
    properties: Properties = names.to_properties(body_of(spec), SHAPE)
    return properties


def _spec(properties: Mapping[str, Any]) -> DeploymentSpec:
    return declaration(names.to_fields(ModelDeployments.compared(dict(properties)), SHAPE))


def _base_url(client: AsyncClient) -> str:
    return f"{client.url}/v1"
