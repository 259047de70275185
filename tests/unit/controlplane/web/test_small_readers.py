from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest
from pydantic import Field

from tidegate.protocol.resources import KeyRole
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.errors import BadRequest, Forbidden
from tidegate_controlplane.web.guard import check_role, is_charged, is_public
from tidegate_controlplane.web.prefer import wait_s
from tidegate_controlplane.web.query import PageQuery, read_query
from tidegate_controlplane.web.request_id import request_id


@pytest.mark.parametrize("offered", ["abc", "req_01H", "0" * 128, "a.b:c-d"])
def test_a_plain_request_id_is_kept(offered: str) -> None:
    assert request_id(offered) == offered


@pytest.mark.parametrize("offered", [None, "", "0" * 129, "a b", "a\nb", "é", 'a"b', "a\r\nX: y"])
def test_any_other_request_id_is_replaced(offered: str | None) -> None:
    assert request_id(offered).startswith("req_")


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, None),
        ("", None),
        ("respond-async", None),
        ("wait=7", 7),
        ("respond-async, wait=7", 7),
        ("Wait = 7; foo", 7),
        ('wait="7"', 7),
        ("wait=999999", 300),
    ],
)
def test_prefer_wait_is_read_and_bounded(header: str | None, wanted: float | None) -> None:
    assert wait_s(header, 300) == wanted


@pytest.mark.parametrize("header", ["wait=0", "wait=-1", "wait=1.5", "wait=", "wait=x", "wait=²"])
def test_a_wait_that_is_no_time_is_refused(header: str) -> None:
    with pytest.raises(BadRequest, match="Prefer: wait"):
        wait_s(header, 300)


class Colour(StrEnum):
    RED = "red"


class Wanted(PageQuery):
    colour: Colour | None = None
    label: list[str] = Field(default=[])


def test_a_query_is_read_as_its_model(request_of: Any) -> None:
    found = read_query(request_of(query="limit=5&after=x&colour=red&label=a&label=b"), Wanted)
    assert found == Wanted(limit=5, after="x", colour=Colour.RED, label=["a", "b"])
    assert read_query(request_of(), Wanted) == Wanted()


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("colour=blue", "colour"),
        ("limt=3", "limt"),
        (f"after={'x' * 257}", "after"),
    ],
)
def test_a_parameter_that_is_not_honoured_is_refused_by_name(
    request_of: Any, query: str, param: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        read_query(request_of(query=query), Wanted)
    assert caught.value.param == param


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/docs", "/docs/openapi.json"])
def test_health_and_documents_are_public(path: str) -> None:
    assert is_public(path)


@pytest.mark.parametrize(
    "path", ["/", "/healthz/", "/healthzz", "/docsx", "//docs", "/v1/models", "/api/v1/docs/"]
)
def test_nothing_else_is_public(path: str) -> None:
    assert not is_public(path)


@pytest.mark.parametrize("path", ["/api/v1/usage", "/", "//v1/models", "/v1", "/v1x/y", "/metrics"])
def test_an_inference_key_reaches_only_the_data_plane(path: str) -> None:
    inference = Principal("key_a", "prj", "plain", KeyRole.INFERENCE, None, None)
    admin = Principal("key_b", "prj", "admin", KeyRole.ADMIN, None, None)
    check_role(inference, "/v1/models")
    check_role(admin, path)
    with pytest.raises(Forbidden, match="'plain' has the role 'inference'"):
        check_role(inference, path)


def test_asking_for_work_is_charged_and_looking_is_not() -> None:
    assert is_charged("POST", "/v1/chat/completions")
    assert not is_charged("GET", "/v1/batches/batch_1")
    assert not is_charged("POST", "/v1/batches/batch_1/cancel")
    assert not is_charged("POST", "/api/v1/plans")
