"""A form, part by part."""

from __future__ import annotations

import pytest

from tidegate_controlplane.errors import BadRequest
from tidegate_controlplane.work.upload import parts

TYPE = "multipart/form-data; boundary=XX"
FORM = (
    b'--XX\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{}\r\n--X\r\n'
    b"--XX--\r\n"
)


async def stream(body, size):
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def read(body, content_type=TYPE, size=7):
    found = []
    async for part in parts(stream(body, size), content_type):
        data = b"".join([piece async for piece in part.data])
        found.append((part.name, part.filename, data))
    return found


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_parts_are_the_same_however_the_bytes_come(size):
    assert await read(FORM, size=size) == [
        ("purpose", None, b"batch"),
        ("file", "a.jsonl", b"{}\r\n--X"),
    ]


async def test_a_part_that_is_not_read_is_skipped():
    assert [part.name async for part in parts(stream(FORM, 7), TYPE)] == ["purpose", "file"]


@pytest.mark.parametrize(
    "content_type", [None, "", "application/json", "multipart/form-data", "text/plain; boundary=X"]
)
async def test_what_is_no_form_is_refused(content_type):
    with pytest.raises(BadRequest, match="expected a multipart/form-data body"):
        await read(FORM, content_type)


@pytest.mark.parametrize("body", [b"", b"junk", FORM[:60], FORM[:-10]])
async def test_a_form_that_is_cut_off_or_junk_is_refused(body):
    with pytest.raises(BadRequest, match="the form cannot be read"):
        await read(body)


async def test_a_form_of_very_many_parts_is_refused():
    part = b'--XX\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n'
    with pytest.raises(BadRequest):
        await read(part * 100 + b"--XX--\r\n")
