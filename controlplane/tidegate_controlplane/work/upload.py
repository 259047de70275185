"""An uploaded form, part by part, as its bytes come in.

Litestar's own `UploadFile` writes the whole form to a temporary file before a handler sees it:
every upload would be written twice, and wherever the temporary directory is. The push parser
underneath lets the bytes go straight to the object store, which makes them durable anyway.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from multipart import (  # type: ignore[import-untyped]
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,
)

from tidegate_controlplane.errors import BadRequest
from tidegate_controlplane.work.files import Part

MAX_PARTS = 16


@dataclass(frozen=True)
class _Begin:
    """A part begins; its bytes follow, then None."""

    name: str
    filename: str | None


_Event = _Begin | bytes | None


async def parts(body: AsyncIterator[bytes], content_type: str | None) -> AsyncIterator[Part]:
    """Each part of a `multipart/form-data` body. Raises BadRequest when it cannot be read.

    What a reader leaves of a part is skipped when the next one is asked for.
    """
    events = _events(body, _boundary(content_type))
    async for event in events:
        if isinstance(event, _Begin):
            yield Part(event.name, event.filename, _data(events))


async def _data(events: AsyncIterator[_Event]) -> AsyncIterator[bytes]:
    async for event in events:
        if event is None:
            return
        if isinstance(event, bytes):
            yield event


async def _events(body: AsyncIterator[bytes], boundary: str) -> AsyncIterator[_Event]:
    with _said_plainly():
        parser = PushMultipartParser(boundary, max_segment_count=MAX_PARTS)
    async for chunk in body:
        if chunk and not parser.closed:
            for event in _parsed(parser, chunk):
                yield event
    with _said_plainly():
        parser.close()


def _parsed(parser: PushMultipartParser, chunk: bytes) -> Iterator[_Event]:
    with _said_plainly():
        for event in parser.parse(chunk):
            if isinstance(event, MultipartSegment):
                yield _Begin(event.name or "", event.filename)
            else:
                yield None if event is None else bytes(event)


def _boundary(content_type: str | None) -> str:
    media_type, options = parse_options_header(content_type or "")
    boundary = options.get("boundary")
    if media_type != "multipart/form-data" or not boundary:
        raise BadRequest(
            "expected a multipart/form-data body with a 'file' and a 'purpose'; got "
            f"{(content_type or 'no content type')[:80]!r}",
            code="invalid_form",
        )
    return str(boundary)


@contextmanager
def _said_plainly() -> Iterator[None]:
    try:
        yield
    except MultipartError as error:
        raise BadRequest(f"the form cannot be read: {error}", code="invalid_form") from error
