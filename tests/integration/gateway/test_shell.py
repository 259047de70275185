from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from litestar.routes import HTTPRoute

from tidegate.protocol.resources import KeyRole
from tidegate.telemetry.logs import LineFormatter

CHAT = "/v1/chat/completions"


@pytest.fixture
def access_log() -> Iterator[io.StringIO]:
    """What is written to the access log, as the process writes it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(LineFormatter("json", {}))
    logger = logging.getLogger("tidegate.access")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield written
    logger.removeHandler(handler)


def is_public(path: str) -> bool:
    return path in {"/healthz", "/readyz", "/docs"} or path.startswith("/docs/")


async def test_every_route_but_the_public_ones_refuses_without_a_key(platform: Any) -> None:
    asked = []
    async with httpx.AsyncClient(base_url=platform.url, trust_env=False) as client:
        for route in platform.app.routes:
            assert isinstance(route, HTTPRoute)
            path = route.path_format.replace("{", "").replace("}", "")
            for method in sorted(route.methods):
                answer = await client.request(method, path)
                asked.append((method, path))
                if is_public(path):
                    assert answer.status_code != 401, (method, path)
                else:
                    assert answer.status_code == 401, (method, path)
                    assert "Bearer tg_" in answer.text
                    assert answer.headers["www-authenticate"] == "Bearer"
    assert ("POST", CHAT) in asked
    assert ("GET", "/api/v1/version") in asked


async def test_a_path_that_does_not_exist_tells_nothing_without_a_key(platform: Any) -> None:
    async with httpx.AsyncClient(base_url=platform.url, trust_env=False) as client:
        for path in ("/nothing", "/v1/nothing", "/api/v1/nothing", "//v1/models", "/v1"):
            answer = await client.get(httpx.URL(platform.url).copy_with(raw_path=path.encode()))
            assert answer.status_code == 401, path


async def test_a_path_that_does_not_exist_is_404_in_the_shape_of_its_door(platform: Any) -> None:
    async with platform.client(platform.admin_key) as client:
        data = await client.get("/v1/nothing")
        control = await client.get("/api/v1/nothing")
    assert data.status_code == control.status_code == 404
    assert data.json()["error"]["type"] == "not_found_error"
    assert "/v1/nothing" in data.json()["error"]["message"]
    assert control.headers["content-type"] == "application/problem+json"
    problem = control.json()
    assert problem["type"] == "urn:tidegate:problem:not_found"
    assert problem["request_id"] == control.headers["x-request-id"]


async def test_a_method_that_a_path_has_not_is_405_with_allow(platform: Any) -> None:
    async with platform.client(platform.admin_key) as client:
        answer = await client.delete(CHAT)
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]
    assert answer.json()["error"]["code"] == "method_not_allowed"


async def test_only_an_admin_key_reaches_the_control_plane(platform: Any) -> None:
    async with platform.client() as client, platform.client(platform.admin_key) as admin:
        refused = await client.get("/api/v1/version")
        doubled = await client.get(httpx.URL(platform.url).copy_with(raw_path=b"//api/v1/version"))
        welcome = await admin.get("/api/v1/version")
    assert refused.status_code == doubled.status_code == 403
    assert refused.json()["code"] == "permission_denied"
    assert welcome.status_code == 200


async def test_what_fails_inside_is_a_500_that_tells_only_the_request_id(
    platform: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with platform.client(platform.admin_key) as client:
        answer = await client.get("/api/v1/broken", headers={"x-request-id": "find-me"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == "find-me"
    logged = next(record for record in caplog.records if record.name == "tidegate.web")
    assert "find-me" in logged.message
    assert logged.exc_info is not None


async def test_a_request_is_one_line_in_the_access_log(
    platform: Any, access_log: io.StringIO
) -> None:
    await platform.ready(platform.Script.json(platform.COMPLETION))
    async with platform.client() as client:
        answer = await client.post(CHAT, json=platform.chat())
    (line,) = map(json.loads, access_log.getvalue().splitlines())
    assert line["logger"] == "tidegate.access"
    assert (line["method"], line["path"], line["status"]) == ("POST", CHAT, 200)
    assert line["request"] == answer.headers["x-request-id"]
    assert line["deployment"] == "smol"
    assert line["key"].startswith("key_")
    assert platform.key not in access_log.getvalue()


async def test_readiness_follows_the_platform_and_health_does_not(platform: Any) -> None:
    async with httpx.AsyncClient(base_url=platform.url, trust_env=False) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        platform.services.ready.set()
        assert (await client.get("/readyz")).status_code == 200


async def test_the_openapi_page_comes_wholly_from_this_server(platform: Any) -> None:
    async with httpx.AsyncClient(base_url=platform.url, trust_env=False) as client:
        page = await client.get("/docs")
        assert "http" not in page.text.replace("<!doctype html>", "")
        for path in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "openapi.json"):
            assert (await client.get(f"/docs/{path}")).status_code == 200
        for path in ("index.html", "..%2f__init__.py", "%2e%2e/__init__.py"):
            assert (await client.get(f"/docs/{path}")).status_code == 404
        document = (await client.get("/docs/openapi.json")).json()
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    chat = document["paths"][CHAT]["post"]
    assert set(chat["responses"]) == {
        "200", "400", "401", "404", "413", "429", "502", "503", "504",
    }  # fmt: skip
    body = chat["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ChatCompletionRequest"}
    assert set(chat["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}


async def test_a_limited_key_sees_what_is_left_and_waits_when_nothing_is(platform: Any) -> None:
    await platform.ready(platform.Script.json(platform.COMPLETION))
    key = await platform.make_key(requests_per_minute=2, tokens_per_minute=None)
    async with platform.client(key) as client:
        looked = await client.get("/v1/models")
        first = await client.post(CHAT, json=platform.chat())
        second = await client.post(CHAT, json=platform.chat())
        third = await client.post(CHAT, json=platform.chat())
    assert looked.headers["x-ratelimit-remaining-requests"] == "2"
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-reset-requests"].endswith("s")
    assert "x-ratelimit-limit-tokens" not in first.headers
    assert second.status_code == 200
    assert third.status_code == 429
    assert 1 <= int(third.headers["retry-after"]) <= 30
    assert third.headers["x-ratelimit-remaining-requests"] == "0"


async def test_tokens_that_were_used_make_the_next_request_wait(platform: Any) -> None:
    await platform.ready(platform.Script.json(platform.COMPLETION))
    key = await platform.make_key(requests_per_minute=None, tokens_per_minute=5)
    async with platform.client(key) as client:
        first = await client.post(CHAT, json=platform.chat())
        second = await client.post(CHAT, json=platform.chat())
    assert first.status_code == 200
    assert first.headers["x-ratelimit-remaining-tokens"] == "0"
    assert second.status_code == 429
    assert "tokens" in second.json()["error"]["message"]


async def test_an_unlimited_key_has_no_ratelimit_headers(platform: Any) -> None:
    async with platform.client() as client:
        answer = await client.get("/v1/models")
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


async def test_a_revoked_key_is_refused_from_then_on(platform: Any) -> None:
    key = await platform.make_key(role=KeyRole.INFERENCE)
    async with platform.client(key) as client:
        assert (await client.get("/v1/models")).status_code == 200
        page = await platform.services.keys.list("prj_default", None, 100)
        await platform.services.keys.revoke("prj_default", page.data[-1].id)
        refused = await client.get("/v1/models")
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "key_revoked"
