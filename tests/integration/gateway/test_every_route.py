"""The whole platform's routes, as `tidegate up` serves them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute

from tidegate.protocol.resources import ApiKeyRequest, KeyRole
from tidegate_controlplane.app import Services, build_app
from tidegate_controlplane.connection import connect
from tidegate_controlplane.process import running
from tidegate_controlplane.routes import HANDLERS
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store.tables import DEFAULT_PROJECT

PUBLIC = {"/healthz", "/readyz"}


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    async with running(Settings(data_dir=tmp_path, port=0)) as (services, _):
        yield services


@pytest.fixture
def app(services: Services) -> Litestar:
    return build_app(services, HANDLERS)


def _routes(app: Litestar) -> list[tuple[str, str]]:
    return [
        (method, route.path_format.replace("{", "").replace("}", ""))
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method in route.route_handler_map
        if method != "OPTIONS"
    ]


def _is_public(path: str) -> bool:
    return path in PUBLIC or path == "/docs" or path.startswith("/docs/")


def _client(app: Litestar, key: str | None = None) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://platform", headers=headers
    )


async def test_every_route_but_health_and_the_openapi_page_refuses_without_a_key(app: Litestar):
    routes = _routes(app)
    assert {"/v1/chat/completions", "/v1/batches", "/api/v1/deployments"} <= {p for _, p in routes}
    async with _client(app) as anonymous:
        for method, path in routes:
            if not _is_public(path):
                answer = await anonymous.request(method, path)
                assert answer.status_code == 401, (method, path, answer.text)


async def test_every_control_route_refuses_a_key_for_inference_only(
    app: Litestar, services: Services
):
    await connect(services, "http://platform")
    wanted = ApiKeyRequest(name="app", role=KeyRole.INFERENCE)
    key = (await services.keys.create(DEFAULT_PROJECT, wanted)).key
    control = [(m, p) for m, p in _routes(app) if p.startswith("/api/")]
    assert len(control) > 15
    async with _client(app, key) as inference:
        for method, path in control:
            answer = await inference.request(method, path)
            assert answer.status_code == 403, (method, path, answer.text)


async def test_every_route_is_in_the_openapi_document(app: Litestar):
    async with _client(app) as anonymous:
        document = (await anonymous.get("/docs/openapi.json")).json()
    described = {
        (method.upper(), path.replace("{", "").replace("}", ""))
        for path, methods in document["paths"].items()
        for method in methods
    }
    served = {(m, p) for m, p in _routes(app) if not p.startswith("/docs") and m != "HEAD"}
    assert served <= described
