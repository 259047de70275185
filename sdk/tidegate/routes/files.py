"""Files: the inputs and outputs of batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, TypeVar
from urllib.parse import quote

from tidegate.flow.lines import drain, lines
from tidegate.flow.pages import pages, read
from tidegate.flow.steps import Emitting, Flow, Request, Upload, ask, chunk
from tidegate.protocol.work import FileDeleted, FileObject

T = TypeVar("T")
ROOT = "/v1/files"


def upload(
    file: BinaryIO, filename: str, purpose: str, expires_after_s: int | None = None
) -> Flow[FileObject]:
    """Send a file from its beginning, in pieces."""
    fields = {"purpose": purpose}
    if expires_after_s is not None:
        fields["expires_after[anchor]"] = "created_at"
        fields["expires_after[seconds]"] = str(expires_after_s)
    body = Upload(file, filename, fields)
    reply = yield from ask(Request("POST", ROOT, upload=body))
    return read(reply, FileObject)


def get(file_id: str) -> Flow[FileObject]:
    reply = yield from ask(Request("GET", _path(file_id)))
    return read(reply, FileObject)


def delete(file_id: str) -> Flow[FileDeleted]:
    reply = yield from ask(Request("DELETE", _path(file_id)))
    return read(reply, FileDeleted)


def listing(purpose: str | None, order: str | None) -> Emitting[FileObject]:
    given = {"purpose": purpose, "order": order}
    query = {name: value for name, value in given.items() if value}
    return pages(Request("GET", ROOT, query=query), FileObject, lambda file: file)


def content(file_id: str) -> Flow[bytes]:
    return drain(_download(file_id))


def content_lines(file_id: str, make: Callable[[str], T]) -> Emitting[T]:
    return lines(_download(file_id), make)


def save(file_id: str, sink: BinaryIO) -> Flow[None]:
    """Write the whole file to `sink`, as it arrives."""
    reply = yield from ask(_download(file_id))
    while (data := (yield from chunk(reply.body))) is not None:
        sink.write(data)


def _download(file_id: str) -> Request:
    return Request("GET", f"{_path(file_id)}/content", stream=True)


def _path(file_id: str) -> str:
    return f"{ROOT}/{quote(file_id, safe='')}"
