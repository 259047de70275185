"""The platform itself: models, API keys, usage, version."""

from __future__ import annotations

from urllib.parse import quote

from tidegate.flow.pages import collected, pages, read
from tidegate.flow.steps import Emitting, Flow, Request, ask
from tidegate.protocol.openai import ModelCard, ModelList
from tidegate.protocol.resources import (
    ApiKeyCreated,
    ApiKeyView,
    KeyRole,
    ModelView,
    UsageView,
    VersionView,
)

MODELS = "/api/v1/models"
KEYS = "/api/v1/api-keys"


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


def usage() -> Flow[list[UsageView]]:
    return collected(Request("GET", "/api/v1/usage"), UsageView)


def version() -> Flow[VersionView]:
    reply = yield from ask(Request("GET", "/api/v1/version"))
    return read(reply, VersionView)
