"""The platform itself: models, API keys, usage, version."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from tidegate.flow.pages import collected, pages, read
from tidegate.flow.poll import poll
from tidegate.flow.steps import Emitting, Flow, Request, ask
from tidegate.protocol.openai import ModelCard, ModelList
from tidegate.protocol.resources import (
    ApiKeyCreated,
    ApiKeyView,
    EncryptionView,
    KeyRole,
    ModelView,
    UsageView,
    VersionView,
)

MODELS = "/api/v1/models"
KEYS = "/api/v1/api-keys"
ENCRYPTION = "/api/v1/encryption"


def models() -> Emitting[ModelView]:
    return pages(Request("GET", MODELS), ModelView, lambda model: model)


def model(model_id: str) -> Flow[ModelView]:
    reply = yield from ask(Request("GET", f"{MODELS}/{quote(model_id, safe='')}"))
    return read(reply, ModelView)


def served() -> Flow[list[ModelCard]]:
    reply = yield from ask(Request("GET", "/v1/models"))
    return read(reply, ModelList).data


def create_key(
    name: str,
    role: KeyRole | str,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
) -> Flow[ApiKeyCreated]:
    """A new key; the server judges the values."""
    body = {
        "name": name,
        "role": str(role),
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
    }
    reply = yield from ask(Request("POST", KEYS, json=body))
    return read(reply, ApiKeyCreated)


def keys() -> Emitting[ApiKeyView]:
    return pages(Request("GET", KEYS), ApiKeyView, lambda key: key)


def revoke_key(key_id: str) -> Flow[ApiKeyView]:
    reply = yield from ask(Request("DELETE", f"{KEYS}/{quote(key_id, safe='')}"))
    return read(reply, ApiKeyView)


def encryption() -> Flow[EncryptionView]:
    reply = yield from ask(Request("GET", ENCRYPTION))
    return read(reply, EncryptionView)


def encryption_pass(
    *, rewrap: bool, on_progress: Callable[[EncryptionView], None] | None
) -> Flow[EncryptionView]:
    """Begin a pass over everything that is sealed, and wait for its end."""
    yield from ask(Request("POST", f"{ENCRYPTION}/passes", json={"rewrap": rewrap}))
    found = yield from poll(
        encryption,
        lambda view: not view.running,
        lambda view: ("the pass over what is sealed", f"{view.seen} seen"),
        timeout_s=None,
        on_change=on_progress,
    )
    return found


def usage() -> Flow[list[UsageView]]:
    return collected(Request("GET", "/api/v1/usage"), UsageView)


def version() -> Flow[VersionView]:
    reply = yield from ask(Request("GET", "/api/v1/version"))
    return read(reply, VersionView)
