"""Which platform the provider speaks to: its configuration, the environment, or the profile."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate import AsyncClient
from tidegate.errors import ConfigurationError
from tidegate.profile import read_profile

SETTINGS = ("url", "apiKey", "connectionFile")
ENGINE_SETTINGS = frozenset({"version", "pluginDownloadURL", "__internal"})
"""What Pulumi itself puts beside a provider's own configuration."""


def faults(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What cannot be meant, as property and reason."""
    found = []
    for key in config:
        if key not in SETTINGS and key not in ENGINE_SETTINGS:
            near = difflib.get_close_matches(key, SETTINGS, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(SETTINGS)}"
            found.append((key, f"unknown setting; {hint}"))
    if "connectionFile" in config and "url" in config:
        reason = "the connection file names a server already; give either it or 'url'"
        found.append(("connectionFile", reason))
    return found


def connected(config: Mapping[str, Any]) -> AsyncClient:
    """A client of the platform. Raises ConfigurationError that says what to set."""
    path = config.get("connectionFile")
    if path is None:
        return AsyncClient(config.get("url"), config.get("apiKey"))
    profile = read_profile(Path(path).expanduser())
    if profile is None:
        raise ConfigurationError(
            f"connectionFile: {path!r} is not there; 'tidegate up' writes one as "
            "connection.json in its data directory"
        )
    return AsyncClient(profile.url, config.get("apiKey") or profile.api_key)
