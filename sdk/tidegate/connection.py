"""Which server, and as whom: arguments first, then the environment, then the profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tidegate.errors import ConfigurationError
from tidegate.profile import profile_path, read_profile

URL_VARIABLE = "TIDEGATE_URL"
KEY_VARIABLE = "TIDEGATE_API_KEY"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class Connection:
    """A server's base URL (without a trailing slash) and the API key to use there."""

    url: str
    api_key: str = field(repr=False)

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, so that no proxy may come between."""
        return urlsplit(self.url).hostname in LOOPBACK


def resolve(url: str | None, api_key: str | None, environment: Mapping[str, str]) -> Connection:
    """Find URL and key, each from the first place that has it.

    The profile's key is only used with the profile's own URL: a key is never sent to a server that
    it was not made for. Raises ConfigurationError that says what to set.
    """
    url = url or environment.get(URL_VARIABLE)
    api_key = api_key or environment.get(KEY_VARIABLE)
    if not (url and api_key):
        profile = read_profile(profile_path(environment))
        if profile and (url is None or _cleaned(url) == _cleaned(profile.url)):
            url, api_key = url or profile.url, api_key or profile.api_key
    if not url:
        raise ConfigurationError(
            f"no server is known: run 'tidegate up', set {URL_VARIABLE} and {KEY_VARIABLE}, "
            "or pass Client(url=..., api_key=...)"
        )
    if not api_key:
        raise ConfigurationError(
            f"no API key is known for {url}: set {KEY_VARIABLE}, or pass Client(api_key=...)"
        )
    return Connection(_checked(url), _checked_key(api_key))


def _cleaned(url: str) -> str:
    return url.strip().rstrip("/").removesuffix("/v1")


def _checked(url: str) -> str:
    cleaned = _cleaned(url)
    parts = urlsplit(cleaned)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"{url!r} is not a server's URL; it looks like http://127.0.0.1:8686"
        )
    return cleaned


def _checked_key(api_key: str) -> str:
    key = api_key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError("the API key holds characters that no key has; copy it again")
    return key
