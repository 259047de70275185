from collections.abc import AsyncIterator

import pytest

from tidegate.protocol.openai import ChatCompletionRequest
from tidegate.protocol.replica import MAX_BODY_BYTES
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.server.body import parse, read_body


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def refusal(body: bytes) -> RequestRefused:
    with pytest.raises(RequestRefused) as refused:
        parse(body, ChatCompletionRequest)
    assert refused.value.status == 400
    return refused.value


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": NaN}', b"\xff\xfe", b"[" * 5000, b'"\\ud800"'])
def test_a_body_that_is_not_json_is_refused(body: bytes) -> None:
    assert refusal(body).code == "invalid_json"


def nested(levels: int) -> bytes:
    return b'{"messages":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_64_levels_of_nesting_are_read_and_65_are_not() -> None:
    assert refusal(nested(64)).code != "json_too_deep"
    assert refusal(nested(65)).code == "json_too_deep"


def test_an_unknown_field_is_refused_by_name() -> None:
    refused = refusal(
        b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "functions": []}'
    )
    assert (refused.param, refused.code) == ("functions", "unsupported_parameter")


async def test_a_body_in_pieces_is_put_together() -> None:
    assert await read_body(None, chunks(b"ab", b"cd")) == b"abcd"


async def test_a_declared_size_beyond_the_limit_is_refused_unread() -> None:
    async def untouched() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    with pytest.raises(RequestRefused) as refused:
        await read_body(str(MAX_BODY_BYTES + 1), untouched())
    assert refused.value.status == 413


async def test_an_undeclared_size_is_refused_once_it_is_too_large() -> None:
    part = b"x" * (MAX_BODY_BYTES // 2 + 1)
    with pytest.raises(RequestRefused) as refused:
        await read_body(None, chunks(part, part))
    assert refused.value.status == 413
