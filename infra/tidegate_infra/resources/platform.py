"""Which platform a stack's deployments are on, where its configuration does not say so."""

from __future__ import annotations

import pulumi

from tidegate_infra.provider.schema import PACKAGE


class Provider(pulumi.ProviderResource):
    """A platform by its URL and key, or by its connection file; pass it as `opts.provider`."""

    def __init__(
        self,
        resource_name: str,
        *,
        url: pulumi.Input[str] | None = None,
        api_key: pulumi.Input[str] | None = None,
        connection_file: pulumi.Input[str] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        key = None if api_key is None else pulumi.Output.secret(api_key)
        props = {"url": url, "apiKey": key, "connectionFile": connection_file}
        super().__init__(PACKAGE, resource_name, props, opts)
