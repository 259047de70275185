"""The routes of files. They translate; the service decides."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated, Any, Literal

from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.types import ASGIApp, ControllerRouterHandler
from pydantic import Field

from tidegate.protocol.work import (
    MAX_BATCH_BYTES,
    FileDeleted,
    FileList,
    FileObject,
)
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.errors import TooLarge
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store.files import Page
from tidegate_controlplane.web.answer import answer
from tidegate_controlplane.web.openapi import BYTES, CONTENT, Media, describe
from tidegate_controlplane.web.query import PageQuery, read_query
from tidegate_controlplane.web.relay import Head, Producer, Relay
from tidegate_controlplane.work.files import Files
from tidegate_controlplane.work.upload import parts

AnyRequest = Request[Any, Any, Any]
FORM_OVERHEAD_BYTES = 64 * 1024
"""What a form may add to the file that it carries."""

UPLOAD = Media(
    "multipart/form-data",
    schema={
        "type": "object",
        "properties": {
            "file": {"type": "string", "format": "binary", "description": "JSONL, at most 200 MB"},
            "purpose": {"type": "string", "enum": ["batch"]},
            "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
            "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2592000},
        },
        "required": ["file", "purpose"],
        "additionalProperties": False,
    },
)


class FilesQuery(PageQuery):
    limit: int = Field(default=10_000, ge=1, le=10_000)
    order: Literal["asc", "desc"] = "desc"
    purpose: Annotated[str, Field(max_length=64)] | None = None


@post(
    "/v1/files",
    status_code=200,
    opt=describe(
        "Upload a file of requests",
        body=UPLOAD,
        answers={200: FileObject},
        refuses=(503,),
    ),
)
async def create_file(
    request: AnyRequest, files: NamedDependency[Files], principal: NamedDependency[Principal]
) -> Response[bytes]:
    """The file goes to the object store as it comes in."""
    _check_length(request.headers.get("content-length"))
    form = parts(request.stream(), request.headers.get("content-type"))
    return answer(await files.create(principal, form))


@get("/v1/files", opt=describe("List files", query=FilesQuery, answers={200: FileList}))
async def list_files(
    request: AnyRequest, files: NamedDependency[Files], principal: NamedDependency[Principal]
) -> Response[bytes]:
    """Newest first, or oldest first with `order=asc`."""
    query = read_query(request, FilesQuery)
    wanted = Page(query.after, query.limit, query.purpose, ascending=query.order == "asc")
    return answer(await files.list(principal, wanted))


@get("/v1/files/{file_id:str}", opt=describe("Describe a file", answers={200: FileObject}))
async def get_file(
    file_id: FromPath[str],
    files: NamedDependency[Files],
    principal: NamedDependency[Principal],
) -> Response[bytes]:
    """Its size, name and purpose."""
    return answer(await files.get(principal, file_id))


@delete(
    "/v1/files/{file_id:str}",
    status_code=200,
    opt=describe("Delete a file", answers={200: FileDeleted}, refuses=(409, 503)),
)
async def delete_file(
    file_id: FromPath[str],
    files: NamedDependency[Files],
    principal: NamedDependency[Principal],
) -> Response[bytes]:
    """Refused while an unfinished batch reads it."""
    return answer(await files.delete(principal, file_id))


@get(
    "/v1/files/{file_id:str}/content",
    opt=describe("Fetch the bytes of a file", answers={200: CONTENT}, refuses=(503,)),
)
async def get_file_content(
    file_id: FromPath[str],
    files: NamedDependency[Files],
    principal: NamedDependency[Principal],
    settings: NamedDependency[Settings],
) -> ASGIApp:
    """Streamed from the object store."""
    return Relay(_content(files, principal, file_id), stall_s=settings.limits.reader_stall_s)


async def _content(files: Files, principal: Principal, file_id: str) -> Producer:
    file, pieces = await files.content(principal, file_id)
    async with aclosing(pieces):
        yield Head(200, BYTES, {"content-length": str(file.bytes)})
        async for piece in pieces:
            yield piece


def _check_length(declared: str | None) -> None:
    """Refuse a file that is announced as too large before any of it is read."""
    most = MAX_BATCH_BYTES + FORM_OVERHEAD_BYTES
    if declared is not None and declared.isdecimal() and int(declared) > most:
        raise TooLarge(f"the file is larger than {MAX_BATCH_BYTES} bytes; split it")


HANDLERS: list[ControllerRouterHandler] = [
    create_file,
    list_files,
    get_file,
    delete_file,
    get_file_content,
]
