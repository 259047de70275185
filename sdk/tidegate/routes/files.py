"""Files: the inputs and outputs of batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO, TypeVar
from urllib.parse import quote

from tidegate.flow.lines import drain, lines
from tidegate.flow.pages import pages, read
from tidegate.flow.steps import Emitting, Flow, Request, Upload, ask
from tidegate.protocol.work import FileDeleted, FileObject

T = TypeVar("T")
ROOT = "/v1/files"


def upload(file: BinaryIO, filename: str, purpose: str) -> Flow[FileObject]:
    """Send a file from its beginning, in pieces."""
    body = Upload(file, filename, {"purpose": purpose})
    reply = yield from ask(Request("POST", ROOT, upload=body))
    return read(reply, FileObject)


def get(file_id: str) -> Flow[FileObject]:
    reply = yield from ask(Request("GET", _path(file_id)))
    return read(reply, FileObject)


def delete(file_id: str) -> Flow[FileDeleted]:
    reply = yield from ask(Request("DELETE", _path(file_id)))
    return read(reply, FileDeleted)


def listing(purpose: str | None) -> Emitting[FileObject]:
    query = {"purpose": purpose} if purpose else {}
    return pages(Request("GET", ROOT, query=query), FileObject, lambda file: file)


def content(file_id: str) -> Flow[bytes]:
    return drain(_download(file_id))


def content_lines(file_id: str, make: Callable[[str], T]) -> Emitting[T]:
    return lines(_download(file_id), make)


def _download(file_id: str) -> Request:
    return Request("GET", f"{_path(file_id)}/content", stream=True)


def _path(file_id: str) -> str:
    return f"{ROOT}/{quote(file_id, safe='')}"
