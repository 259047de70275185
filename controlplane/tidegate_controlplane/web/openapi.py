"""The OpenAPI document: what each route says of itself, and pydantic's own schemas.

A route is described where it is declared:

    @post("/v1/batches", status_code=200, opt=describe(
        "Begin a batch over an uploaded file",
        body=BatchRequest,
        answers={200: BatchObject},
        refuses=(409,),
    ))
    async def create_batch(
        request: Request[Any, Any, Any], batches: NamedDependency[Batches]
    ) -> Response[bytes]:
        wanted = await read_model(request, BatchRequest, limit_bytes)
        ...

    @get("/api/v1/api-keys", opt=describe(
        "List the API keys", query=PageQuery, answers={200: Page[ApiKeyView]}
    ))
    async def list_keys(
        request: Request[Any, Any, Any],
        keys: NamedDependency[KeyService],
        principal: NamedDependency[Principal],
    ) -> Response[bytes]:
        query = read_query(request, PageQuery)
        ...

- `body` and each answer is anything pydantic can describe (a model, a union, `list[int]`), a
  `Media` when it is not JSON, a tuple of those when there are several, None when there is none.
- `refuses` adds the error statuses of the service behind the route. Those of the shell are added
  by themselves: 401 and 403, 400 and 413 for a body, 422 for one under `/api`, 400 for a query,
  404 for a path parameter, 429 for what is charged. Their shape follows from the path.
- Litestar 2.25 wants what a handler is given to be marked: `NamedDependency[...]` (litestar.di) for
  a service, `FromPath[str]` (litestar.params) for a path parameter.
- `query` is a model for `read_query`; `headers` are the request headers that are honoured: a
  sentence each, or a `Header` when only some values are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from tidegate.protocol.openai import ErrorResponse
from tidegate.protocol.resources import Problem
from tidegate_controlplane.web.guard import is_charged

OPT_KEY = "operation"
JSON = "application/json"
PROBLEM = "application/problem+json"
EVENT_STREAM = "text/event-stream"
_REFERENCES = "#/components/schemas/{model}"

Mode = Literal["validation", "serialization"]
Json = dict[str, Any]


@dataclass(frozen=True)
class Media:
    """One representation of a body: its media type, and its shape or its literal schema."""

    type: str
    shape: Any = None
    schema: Mapping[str, Any] | None = None


EVENTS = Media(EVENT_STREAM, schema={"type": "string"})
"""A stream of server-sent events."""
BYTES = "application/octet-stream"
CONTENT = Media(BYTES, schema={"type": "string", "format": "binary"})


@dataclass(frozen=True)
class Header:
    """A request header of which only some values are honoured."""

    text: str
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Operation:
    """What one route says of itself."""

    summary: str
    answers: Mapping[int, tuple[Media, ...]]
    refuses: frozenset[int]
    body: tuple[Media, ...]
    query: type[BaseModel] | None
    headers: Mapping[str, Header]
    public: bool


def describe(
    summary: str,
    *,
    answers: Mapping[int, Any],
    refuses: Iterable[int] = (),
    body: Any = None,
    query: type[BaseModel] | None = None,
    headers: Mapping[str, str | Header] | None = None,
    public: bool = False,
) -> dict[str, Any]:
    """The `opt` of a route handler; the module's docstring shows it in use."""
    return {
        OPT_KEY: Operation(
            summary=summary,
            answers={status: _media(answer) for status, answer in answers.items()},
            refuses=frozenset(refuses),
            body=_media(body),
            query=query,
            headers={name: _header(given) for name, given in (headers or {}).items()},
            public=public,
        )
    }


def document(app: Litestar, *, title: str, version: str, description: str) -> Json:
    """The OpenAPI 3.1 document of every described route of `app`."""
    described = list(_described(app))
    schemas = _Schemas(_shapes(operation, path) for path, _, _, operation in described)
    paths: dict[str, Json] = {}
    for path, method, handler, operation in described:
        paths.setdefault(path, {})[method.lower()] = _operation(
            path, method, handler, operation, schemas
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "servers": [{"url": "/"}],
        "security": [{"apiKey": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": schemas.definitions,
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key of this platform: `tg_…`",
                }
            },
        },
    }


# --- collecting -----------------------------------------------------------------------------------


def _header(given: str | Header) -> Header:
    return given if isinstance(given, Header) else Header(given, {"type": "string"})


def _media(given: Any) -> tuple[Media, ...]:
    if given is None:
        return ()
    parts = given if isinstance(given, tuple) else (given,)
    return tuple(part if isinstance(part, Media) else Media(JSON, shape=part) for part in parts)


def _described(app: Litestar) -> Iterator[tuple[str, str, HTTPRouteHandler, Operation]]:
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        for method, (handler, _) in sorted(route.route_handler_map.items()):
            operation = handler.opt.get(OPT_KEY)
            if isinstance(operation, Operation):
                yield route.path_format, method, handler, operation


def error_media(path: str) -> Media:
    """The error shape of a route, by its path."""
    return Media(JSON, ErrorResponse) if path.startswith("/v1/") else Media(PROBLEM, Problem)


def refusals(operation: Operation, method: str, path: str) -> Collection[int]:
    """Every error status that a route can answer, the shell's included."""
    statuses = set(operation.refuses)
    if not operation.public:
        statuses |= {401} if path.startswith("/v1/") else {401, 403}
    if operation.body:
        statuses |= {400, 413} if path.startswith("/v1/") else {400, 413, 422}
    if operation.query is not None:
        statuses.add(400)
    if "{" in path:
        statuses.add(404)
    if is_charged(method, path):
        statuses.add(429)
    return sorted(statuses - set(operation.answers))


def _shapes(operation: Operation, path: str) -> list[tuple[Any, Mode]]:
    found: list[tuple[Any, Mode]] = [(media.shape, "validation") for media in operation.body]
    for answer in operation.answers.values():
        found += [(media.shape, "serialization") for media in answer]
    found.append((error_media(path).shape, "serialization"))
    return [(shape, mode) for shape, mode in found if shape is not None]


class _Schemas:
    """Pydantic's schemas of all shapes, with the parts they share under one name."""

    def __init__(self, shapes: Iterable[list[tuple[Any, Mode]]]) -> None:
        wanted = {(repr(shape), mode): (shape, mode) for found in shapes for shape, mode in found}
        inputs = [(key, mode, TypeAdapter[Any](shape)) for key, (shape, mode) in wanted.items()]
        generated, extra = TypeAdapter.json_schemas(
            inputs, ref_template=_REFERENCES, schema_generator=GenerateJsonSchema
        )
        self._schemas = generated
        self.definitions: Json = extra.get("$defs", {})

    def of(self, media: Media, mode: Mode) -> Json:
        if media.schema is not None:
            return dict(media.schema)
        if media.shape is None:
            return {}
        return self._schemas[(repr(media.shape), mode), mode]


# --- writing --------------------------------------------------------------------------------------


def _operation(
    path: str, method: str, handler: HTTPRouteHandler, operation: Operation, schemas: _Schemas
) -> Json:
    answers = {
        str(status): _answer(status, media, schemas) for status, media in operation.answers.items()
    }
    answers |= {
        str(status): _answer(status, (error_media(path),), schemas)
        for status in refusals(operation, method, path)
    }
    written: Json = {
        "operationId": handler.handler_name,
        "summary": operation.summary,
        "tags": [_tag(path)],
        "responses": answers,
    }
    if parameters := _parameters(path, operation, schemas):
        written["parameters"] = parameters
    if operation.body:
        content = {m.type: {"schema": schemas.of(m, "validation")} for m in operation.body}
        written["requestBody"] = {"required": True, "content": content}
    if operation.public:
        written["security"] = []
    return written


def _answer(status: int, media: tuple[Media, ...], schemas: _Schemas) -> Json:
    answer: Json = {"description": HTTPStatus(status).phrase}
    if media:
        answer["content"] = {m.type: {"schema": schemas.of(m, "serialization")} for m in media}
    return answer


def _parameters(path: str, operation: Operation, schemas: _Schemas) -> list[Json]:
    found: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in (part.split("}")[0] for part in path.split("{")[1:])
    ]
    found += [
        {"name": name, "in": "header", "description": header.text, "schema": dict(header.schema)}
        for name, header in operation.headers.items()
    ]
    if operation.query is not None:
        schema = operation.query.model_json_schema(ref_template=_REFERENCES)
        schemas.definitions.update(schema.get("$defs", {}))
        required = schema.get("required", [])
        for name, part in schema["properties"].items():
            found.append(
                {"name": name, "in": "query", "required": name in required, "schema": part}
            )
    return found


def _tag(path: str) -> str:
    if path.startswith("/v1/"):
        return "data plane"
    return "control plane" if path.startswith("/api/") else "platform"
