"""The OpenAPI page at `/docs`, wholly from this machine, and the document behind it."""

from __future__ import annotations

import json
from pathlib import Path

from litestar import Litestar, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from tidegate_controlplane.errors import NotFound
from tidegate_controlplane.web.openapi import JSON, Media, describe, document

DOCUMENT_PATH = "/docs/openapi.json"
_ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Tidegate API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
</head>
<body>
<div id="page"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
# The bundled viewer checks for version 3.0 by name; it shows what a 3.1 document adds well enough.
_START = """fetch("/docs/openapi.json").then((answer) => answer.json()).then((spec) => {
  spec.openapi = "3.0.3";
  SwaggerUIBundle({ spec, dom_id: "#page", deepLinking: true, persistAuthorization: true });
});
"""
_POLICY = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'"
    )
}


@get("/docs", include_in_schema=False, sync_to_thread=False)
def page() -> Response[str]:
    """The viewer."""
    return Response(_PAGE, media_type="text/html", headers=_POLICY)


@get(
    DOCUMENT_PATH,
    opt=describe(
        "This document", answers={200: Media(JSON, schema={"type": "object"})}, public=True
    ),
    sync_to_thread=False,
)
def openapi_document(openapi: NamedDependency[bytes]) -> Response[bytes]:
    """The OpenAPI document."""
    return Response(openapi, media_type=JSON)


@get("/docs/{asset:str}", include_in_schema=False, sync_to_thread=False)
def viewer_asset(asset: FromPath[str]) -> Response[bytes]:
    """A file of the viewer; only those that the page asks for."""
    if asset == "start.js":
        return Response(_START.encode(), media_type="text/javascript")
    if asset not in _ASSETS:
        raise NotFound(f"/docs has no file {asset[:64]!r}")
    return Response((_viewer_dir() / asset).read_bytes(), media_type=_ASSETS[asset])


def written_document(app: Litestar, version: str) -> bytes:
    """The document of `app`, as it is served."""
    content = document(
        app,
        title="Tidegate",
        version=version,
        description="A self-hosted serverless inference platform for language models.",
    )
    return json.dumps(content).encode()


def _viewer_dir() -> Path:
    import swagger_ui_bundle

    return Path(str(swagger_ui_bundle.swagger_ui_path))


HANDLERS: list[ControllerRouterHandler] = [page, openapi_document, viewer_asset]
