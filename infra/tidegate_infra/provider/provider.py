"""The provider: what Pulumi asks, answered by the kind of resource that it asks about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pulumi.provider.experimental import provider as ask

from tidegate import AsyncClient
from tidegate.errors import ConfigurationError
from tidegate_infra.errors import StartFailed, UnknownResource
from tidegate_infra.provider import api_keys, deployments
from tidegate_infra.provider.api_keys import ApiKeys
from tidegate_infra.provider.changes import response
from tidegate_infra.provider.connection import connected, faults
from tidegate_infra.provider.deployments import ModelDeployments
from tidegate_infra.provider.findings import reason
from tidegate_infra.provider.schema import schema_text
from tidegate_infra.provider.sdk_faults import (
    CONFIGURED,
    has_unknown,
    plain_map,
    secrets_in,
    value_map,
)

Kind = type[ModelDeployments] | type[ApiKeys]

KINDS: dict[str, Kind] = {deployments.TOKEN: ModelDeployments, api_keys.TOKEN: ApiKeys}


class TidegateProvider(ask.Provider):
    """Deployments and API keys of one platform. Raises TidegateError and InfraError."""

    def __init__(self) -> None:
        self._client: AsyncClient | None = None

    # --- the provider itself ------------------------------------------------------------------

    async def get_schema(self, _: ask.GetSchemaRequest) -> ask.GetSchemaResponse:
        return ask.GetSchemaResponse(schema_text())

    async def check_config(self, request: ask.CheckRequest) -> ask.CheckResponse:
        found = faults(plain_map(request.new_inputs))
        failures = [ask.CheckFailure(name, why) for name, why in found]
        return ask.CheckResponse(request.new_inputs, failures)

    async def configure(self, request: ask.ConfigureRequest) -> ask.ConfigureResponse:
        config = plain_map(request.args)
        await self.close()
        if not has_unknown(config):  # in a preview of a stack that makes the platform as well
            self._client = connected(config)
        return CONFIGURED

    async def close(self) -> None:
        """Let go of the connections to the platform."""
        former, self._client = self._client, None
        if former is not None:
            await former.close()

    async def cancel(self) -> None:
        """What was asked of the platform goes on there; nothing here has to be undone."""

    # --- its resources ------------------------------------------------------------------------

    async def check(self, request: ask.CheckRequest) -> ask.CheckResponse:
        kind, secret = _kind(request.type), secrets_in(request.new_inputs)
        inputs, issues = kind.checked(plain_map(request.new_inputs), request.name)
        failures = [ask.CheckFailure(each.field, reason(each, secret)) for each in issues]
        return ask.CheckResponse(value_map(inputs, secret), failures)

    async def diff(self, request: ask.DiffRequest) -> ask.DiffResponse:
        kind = _kind(request.type)
        old = kind.compared(plain_map(request.old_state))
        new = kind.compared(plain_map(request.new_inputs))
        return response(old, new, kind.fixed)

    async def create(self, request: ask.CreateRequest) -> ask.CreateResponse:
        kind, inputs = _kind(request.type), plain_map(request.properties)
        secret = kind.secret | secrets_in(request.properties)
        if request.preview:
            return ask.CreateResponse("", value_map(kind.foreseen(inputs), secret))
        with _kept(secret):
            made, outputs = await kind(self._connected).create(inputs, request.timeout)
        return ask.CreateResponse(made, value_map(outputs, secret))

    async def read(self, request: ask.ReadRequest) -> ask.ReadResponse:
        kind = _kind(request.type)
        secret = kind.secret | secrets_in(request.properties) | secrets_in(request.inputs)
        found = await kind(self._connected).read(
            request.resource_id, plain_map(request.properties), plain_map(request.inputs)
        )
        if found is None:
            return ask.ReadResponse("")
        outputs, inputs = found
        return ask.ReadResponse(
            request.resource_id, value_map(outputs, secret), value_map(inputs, secret)
        )

    async def update(self, request: ask.UpdateRequest) -> ask.UpdateResponse:
        """Of a deployment: every change of a key is a replacement."""
        old, inputs = plain_map(request.olds), plain_map(request.news)
        secret = secrets_in(request.news)
        if request.preview:
            foreseen = ModelDeployments.foreseen(inputs) | _stable(old)
            return ask.UpdateResponse(value_map(foreseen, secret))
        with _kept(secret):
            outputs = await ModelDeployments(self._connected).update(
                request.resource_id, old, inputs, request.timeout
            )
        return ask.UpdateResponse(value_map(outputs, secret))

    async def delete(self, request: ask.DeleteRequest) -> None:
        kind = _kind(request.type)
        await kind(self._connected).delete(request.resource_id, request.timeout)

    @property
    def _connected(self) -> AsyncClient:
        if self._client is None:
            raise ConfigurationError(
                "the provider's url or apiKey is not known yet; set them with "
                "`pulumi config set tidegate:url` and `pulumi config set --secret tidegate:apiKey`"
            )
        return self._client


def _kind(token: str) -> Kind:
    if token not in KINDS:
        raise UnknownResource(f"{token}: this provider makes {', '.join(KINDS)}")
    return KINDS[token]


def _stable(old: dict[str, Any]) -> dict[str, Any]:
    """What an update in place leaves as it is."""
    return {name: old[name] for name in ("deploymentId", "baseUrl") if name in old}


@contextmanager
def _kept(secret: frozenset[str]) -> Iterator[None]:
    """What is told of something that does not start is as secret as what was given."""
    try:
        yield
    except StartFailed as failed:
        failed.outputs = value_map(failed.outputs, secret)
        raise
