from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_controlplane.errors import BadRequest, TooLarge
from tidegate_controlplane.web.body import parse_object, read_bytes, read_json


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return b'{"a":' + opening * (depth - 1) + closing * (depth - 1) + b"}"


async def test_a_body_comes_whole_however_it_was_cut(request_of: Any) -> None:
    body = await read_json(request_of(b'{"a"', b"", b": 1}"), 100)
    assert body.raw == b'{"a": 1}'
    assert body.document == {"a": 1}


async def test_a_declared_length_beyond_the_limit_is_refused_before_a_byte_is_read(
    request_of: Any,
) -> None:
    request = request_of(b"x" * 101, headers={"content-length": "101"})
    with pytest.raises(TooLarge, match="100 bytes"):
        await read_bytes(request, 100)
    assert request.scope["state"]["asked"] == [0]


async def test_a_chunked_body_is_refused_as_soon_as_it_is_too_long(request_of: Any) -> None:
    request = request_of(*[b"x" * 40] * 10)
    with pytest.raises(TooLarge):
        await read_bytes(request, 100)
    assert request.scope["state"]["asked"] == [3]


async def test_a_body_of_exactly_the_limit_is_read(request_of: Any) -> None:
    request = request_of(b"x" * 100, headers={"content-length": "100"})
    assert len(await read_bytes(request, 100)) == 100


async def test_a_client_that_leaves_in_the_middle_sends_no_body(request_of: Any) -> None:
    with pytest.raises(BadRequest, match="closed the connection"):
        await read_bytes(request_of(b'{"a": 1}', ends=False), 100)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "line 1, column 1"),
        (b'{"a": 1,\n "b" 2}', "line 2, column 6"),
        (b"\xff\xfe", "not UTF-8: byte 0"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        (b"[1]", "not an array"),
        (b'"text"', "not a string"),
        (b"1", "not a number"),
        (b"1.5", "not a number"),
        (b"true", "not a boolean"),
        (b"null", "not null"),
        (b'{"a": NaN}', "NaN is not a JSON value"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON value"),
        (b'{"a": 1e999}', "out of range"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (nested(65), "deeper than 64"),
        (nested(65, b'{"a":', b"}").replace(b":}", b":1}"), "deeper than 64"),
        (nested(100_000), "deeper than 64"),
    ],
)
def test_what_is_not_a_small_json_object_is_refused_with_the_reason(raw: bytes, says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        parse_object(raw)


def test_sixty_four_levels_are_read() -> None:
    assert parse_object(nested(64))


def test_many_shallow_things_are_not_deep() -> None:
    assert len(parse_object(b'{"a":[' + b",".join([b"{}"] * 1000) + b"]}")["a"]) == 1000


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_bad_request(raw: bytes) -> None:
    with suppress(BadRequest):
        assert isinstance(parse_object(raw), dict)
