from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
from litestar import Litestar, delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from pydantic import BaseModel

from tidegate.protocol.resources import Page
from tidegate_controlplane.web.openapi import EVENTS, Media, describe, document
from tidegate_controlplane.web.query import PageQuery


class Wish(BaseModel):
    colour: str


class Thing(BaseModel):
    id: str
    wish: Wish


@post(
    "/v1/things",
    opt=describe(
        "Make a thing",
        body=Wish,
        answers={201: (Thing, EVENTS)},
        refuses=(409,),
        headers={"Prefer": "how long"},
    ),
)
async def make_thing() -> None: ...


@get("/api/v1/things", opt=describe("List", query=PageQuery, answers={200: Page[Thing]}))
async def list_things() -> None: ...


@get("/api/v1/things/{name:str}", opt=describe("Read", answers={200: Thing | Wish}))
async def get_thing(name: FromPath[str]) -> None: ...


@get("/open", opt=describe("Open", answers={200: Media("text/plain")}, public=True))
async def open_door() -> None: ...


@get("/silent")
async def silent() -> None: ...


@delete("/api/v1/things/{name:str}", status_code=204, opt=describe("Drop", answers={204: None}))
async def drop_thing(name: FromPath[str]) -> None: ...


@put("/api/v1/things/{name:str}", opt=describe("Change", body=Wish, answers={200: Thing}))
async def change_thing(name: FromPath[str]) -> None: ...


HANDLERS = (make_thing, list_things, get_thing, drop_thing, change_thing, open_door, silent)


def written(handlers: Sequence[HTTPRouteHandler] = HANDLERS) -> Any:
    app = Litestar(handlers, openapi_config=None, logging_config=None)
    return document(app, title="T", version="1", description="d")


@pytest.mark.parametrize("of_a_path", list(permutations((get_thing, drop_thing, change_thing))))
def test_the_document_is_the_same_text_however_the_routes_are_found(
    of_a_path: tuple[HTTPRouteHandler, ...],
) -> None:
    shuffled = (silent, *of_a_path, open_door, list_things, make_thing)
    assert json.dumps(written(shuffled)) == json.dumps(written())


def test_a_body_and_each_answer_have_their_models() -> None:
    found = written()
    operation = found["paths"]["/v1/things"]["post"]
    reference = {"$ref": "#/components/schemas/Wish"}
    assert operation["requestBody"]["content"]["application/json"]["schema"] == reference
    assert operation["responses"]["201"]["content"] == {
        "application/json": {"schema": {"$ref": "#/components/schemas/Thing"}},
        "text/event-stream": {"schema": {"type": "string"}},
    }
    assert found["components"]["schemas"]["Thing"]["properties"]["wish"] == reference


def test_the_statuses_of_the_shell_are_added_by_themselves() -> None:
    paths = written()["paths"]
    assert set(paths["/v1/things"]["post"]["responses"]) == {
        "201", "400", "401", "409", "413", "429",
    }  # fmt: skip
    assert set(paths["/api/v1/things"]["get"]["responses"]) == {"200", "400", "401", "403"}
    assert set(paths["/api/v1/things/{name}"]["get"]["responses"]) == {"200", "401", "403", "404"}
    assert set(paths["/open"]["get"]["responses"]) == {"200"}


def test_errors_have_the_shape_of_their_door() -> None:
    paths = written()["paths"]
    data = paths["/v1/things"]["post"]["responses"]["401"]["content"]
    control = paths["/api/v1/things"]["get"]["responses"]["401"]["content"]
    assert data == {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}
    assert control == {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
    }


def test_parameters_come_from_path_query_and_headers() -> None:
    paths = written()["paths"]
    assert paths["/api/v1/things/{name}"]["get"]["parameters"] == [
        {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    ]
    query = {p["name"]: p for p in paths["/api/v1/things"]["get"]["parameters"]}
    assert query["limit"]["schema"]["maximum"] == 100
    assert not query["after"]["required"]
    assert paths["/v1/things"]["post"]["parameters"][0]["in"] == "header"


def test_everything_but_the_public_wants_the_key() -> None:
    found = written()
    assert found["security"] == [{"apiKey": []}]
    assert found["paths"]["/open"]["get"]["security"] == []
    assert "security" not in found["paths"]["/v1/things"]["post"]


def test_a_route_that_says_nothing_is_not_in_the_document() -> None:
    assert "/silent" not in written()["paths"]
