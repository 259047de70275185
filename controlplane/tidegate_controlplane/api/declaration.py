"""A declaration in a request's body, as JSON or YAML."""

from __future__ import annotations

from typing import Any

from litestar import Request

from tidegate.spec import DeploymentSpec, SpecError, SpecIssue, load, parse
from tidegate_controlplane.errors import BadRequest, Invalid
from tidegate_controlplane.web.body import parse_object, read_bytes
from tidegate_controlplane.web.openapi import Media

DECLARATION_BYTES = 256 * 1024
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml")
BODY = (
    Media("application/json", shape=DeploymentSpec),
    Media("application/yaml", schema={"type": "string", "description": "the same, as YAML"}),
)
"""How a route documents that it takes a declaration."""


async def read_declaration(
    request: Request[Any, Any, Any], name: str | None = None
) -> DeploymentSpec:
    """The declaration, whose `name` must be that of the path (or absent).

    Raises Invalid naming every faulty field, BadRequest when the body cannot be read at all.
    """
    raw = await read_bytes(request, DECLARATION_BYTES)
    try:
        return _parse(raw, request.headers.get("content-type", ""), name)
    except SpecError as error:
        raise Invalid(str(error), issues=error.issues) from error


def _parse(raw: bytes, content_type: str, name: str | None) -> DeploymentSpec:
    document = _document(raw, content_type)
    if name is not None:
        document.setdefault("name", name)
    spec = parse(document)
    if name is not None and spec.name != name:
        issue = SpecIssue("name", spec.name, f"the path says {name!r}; they must be equal")
        raise SpecError([issue])
    return spec


def _document(raw: bytes, content_type: str) -> dict[str, Any]:
    if content_type.split(";")[0].strip().lower() not in YAML_TYPES:
        return parse_object(raw)
    try:
        return load(raw.decode())
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: byte {error.start}") from None
