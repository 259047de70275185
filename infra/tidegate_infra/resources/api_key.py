"""An API key, declared in a stack."""

from __future__ import annotations

import pulumi

from tidegate.protocol.resources import KeyRole
from tidegate_infra.provider.api_keys import SECRET, SHAPE, TOKEN
from tidegate_infra.resources.properties import properties


class ApiKey(pulumi.CustomResource):
    """A key of the platform; every change makes a new one before the old is revoked.

    A limit of None means no limit. The secret is in `key`, and the stack keeps it encrypted.
    """

    name: pulumi.Output[str]
    key: pulumi.Output[str]
    """The secret."""

    def __init__(
        self,
        resource_name: str,
        *,
        name: pulumi.Input[str] | None = None,
        role: pulumi.Input[KeyRole | str] = KeyRole.INFERENCE,
        requests_per_minute: pulumi.Input[int] | None = 60,
        tokens_per_minute: pulumi.Input[int] | None = 100_000,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        declared = {
            "name": name,
            "role": role,
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
        }
        props = dict.fromkeys(SECRET) | properties(declared, SHAPE)
        super().__init__(TOKEN, resource_name, props, opts)
