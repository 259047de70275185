"""The connection file: how the machine's own users reach the platform."""

from __future__ import annotations

from tidegate_controlplane.access.keys import admin
from tidegate_controlplane.app import Services
from tidegate_controlplane.data_dir import former_key, write_private
from tidegate_controlplane.errors import Unauthenticated
from tidegate_controlplane.store.tables import DEFAULT_PROJECT


async def connect(services: Services, url: str, given: str | None = None) -> str:
    """Write the connection file: the URL, and a key that works. Returns the key.

    It is the `given` one while that is not revoked. Else the key of an earlier run is kept while
    it is valid; secrets are not stored, so when both the file and the one set aside are lost a new
    admin key takes its place. Raises StartError for a given key that cannot be taken.
    """
    settings, keys = services.settings, services.keys
    key = given if given is not None and await keys.ensure_given(given) else None
    key = key or await keys.ensure_first()
    if key is None:
        key = former_key(settings.connection_path)
        try:
            await keys.authenticate(f"Bearer {key}")
        except Unauthenticated:
            key = (await keys.create(DEFAULT_PROJECT, admin("connection"))).key
    write_private(settings.connection_path, {"url": url, "api_key": key})
    return str(key)
