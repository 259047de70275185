"""`tidegate:index:ApiKey`: a key of the platform, whose secret the stack keeps encrypted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from tidegate import AsyncClient
from tidegate.errors import NotFound
from tidegate.protocol.resources import ApiKeyRequest, ApiKeyView
from tidegate.spec import SpecIssue
from tidegate_infra.provider import names
from tidegate_infra.provider.changes import Fixed
from tidegate_infra.provider.findings import judge
from tidegate_infra.provider.sdk_faults import UNKNOWN, has_unknown
from tidegate_infra.provider.shapes import Shape

TOKEN = "tidegate:index:ApiKey"
SHAPE = Shape(model=ApiKeyRequest)

Properties = dict[str, Any]


class ApiKeyOutputs(BaseModel):
    """What the platform adds to what was asked for."""

    key: str = Field(description="the secret; the platform shows it once and keeps a digest")


SECRET = frozenset(ApiKeyOutputs.model_fields)


@dataclass(frozen=True)
class ApiKeys:
    """Makes, reads and revokes keys; none changes in place. Raises TidegateError."""

    client: AsyncClient

    secret = SECRET
    fixed = Fixed(frozenset(map(names.camel, ApiKeyRequest.model_fields)))

    @staticmethod
    def checked(inputs: Properties, name: str) -> tuple[Properties, list[SpecIssue]]:
        """The inputs in one spelling, or all that is wrong with them."""
        named = {"name": name, **inputs}
        issues = judge(named, ApiKeyRequest)
        if issues or has_unknown(named):
            return named, issues
        request = ApiKeyRequest.model_validate(names.to_fields(named, SHAPE))
        return names.to_properties(request.model_dump(mode="json"), SHAPE), []

    @staticmethod
    def compared(properties: Properties) -> Properties:
        """The part of inputs or outputs that is declared, so that a difference is a change."""
        return {key: each for key, each in properties.items() if key not in SECRET}

    @staticmethod
    def foreseen(inputs: Properties) -> Properties:
        """The outputs of a new one as a preview can tell them."""
        return inputs | dict.fromkeys(SECRET, UNKNOWN)

    async def create(self, inputs: Properties, _timeout_s: float) -> tuple[str, Properties]:
        """Id and outputs."""
        request = ApiKeyRequest.model_validate(names.to_fields(inputs, SHAPE))
        made = await self.client.keys.create(
            request.name, request.role, request.requests_per_minute, request.tokens_per_minute
        )
        return made.id, _outputs(made) | {"key": made.key}

    async def read(
        self, resource_id: str, old: Properties, _inputs: Properties
    ) -> tuple[Properties, Properties] | None:
        """Outputs and inputs as they are now; None when it is revoked.

        The platform does not know the secret, so that it is the one that the stack knows.
        """
        secret = {name: old[name] for name in SECRET if name in old}
        async for view in self.client.keys.list():
            if view.id == resource_id and view.revoked_at is None:
                return _outputs(view) | secret, _outputs(view)
        return None

    async def delete(self, resource_id: str, _timeout_s: float) -> None:
        """From now on it opens nothing; also when it was revoked already."""
        try:
            await self.client.keys.revoke(resource_id)
        except NotFound:
            return


def _outputs(view: ApiKeyView) -> Properties:
    fields = view.model_dump(mode="json", include=set(ApiKeyRequest.model_fields))
    properties: Properties = names.to_properties(fields, SHAPE)
    return properties
