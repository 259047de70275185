"""Files: what batches read and write, under OpenAI's shapes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from sqlmodel import Session

from tidegate.protocol.work import MAX_BATCH_BYTES, FileDeleted, FileList, FileObject
from tidegate_controlplane.access.principal import Principal
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.errors import BadRequest, Conflict, NotFound
from tidegate_controlplane.objects.base import ObjectStore, Stored
from tidegate_controlplane.store import files
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.ids import new_id
from tidegate_controlplane.store.tables import File
from tidegate_controlplane.work.object_keys import file_key
from tidegate_controlplane.work.pages import check_cursor
from tidegate_controlplane.work.storage import answering_for_storage
from tidegate_controlplane.work.views import file_object

MAX_FIELD_BYTES = 1024
MAX_NAME_CHARS = 255


@dataclass(frozen=True)
class Part:
    """One part of an uploaded form."""

    name: str
    filename: str | None
    data: AsyncIterator[bytes]
    """To be read before the next part is asked for."""


class Files:
    """The service behind `/v1/files`."""

    def __init__(self, db: Database, objects: ObjectStore, clock: Clock) -> None:
        self._db = db
        self._objects = objects
        self._clock = clock

    async def create(self, principal: Principal, form: AsyncIterator[Part]) -> FileObject:
        """Keep the `file` part of `form`, whose `purpose` must be `batch`.

        The bytes go to the object store as they come. Raises BadRequest naming the part that is
        missing or wrong, TooLarge, Unavailable; nothing is kept then.
        """
        file_id = new_id("file")
        key = file_key(principal.project_id, file_id)
        try:
            upload = await self._receive(form, key)
            file = _row(principal, file_id, key, upload)
            file.created_at = self._clock.now()
            # failpoint file.stored
            await self._db.write(lambda session: files.insert(session, file))
            # failpoint file.committed
        except BaseException:
            # Asked of the writer, so after an insertion that a cancellation left on its way.
            if await self._db.write(lambda session: session.get(File, file_id)) is None:
                await self._objects.delete(key)
            raise
        return file_object(file)

    async def get(self, principal: Principal, file_id: str) -> FileObject:
        return file_object(await self._find(principal, file_id))

    async def list(
        self, principal: Principal, *, after: str | None, limit: int, purpose: str | None = None
    ) -> FileList:
        """Newest first."""
        check_cursor(after, "file")
        rows = await self._db.read(
            lambda session: files.page(
                session, principal.project_id, after=after, limit=limit + 1, purpose=purpose
            )
        )
        data = [file_object(row) for row in rows[:limit]]
        return FileList(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=len(rows) > limit,
        )

    async def delete(self, principal: Principal, file_id: str) -> FileDeleted:
        """Raises Conflict while an unfinished batch reads the file."""
        now = self._clock.now()

        def unit(session: Session) -> File:
            file = files.get(session, principal.project_id, file_id)
            if file is None:
                raise _unknown(file_id)
            if user := files.user_of(session, file_id):
                raise Conflict(
                    f"{file_id} is read by {user}, which is not finished; cancel that first",
                    code="file_in_use",
                )
            files.delete(session, file, now)
            return file

        file = await self._db.write(unit)
        with answering_for_storage():
            await self._objects.delete(file.object_key)
        return FileDeleted(id=file_id)

    async def content(
        self, principal: Principal, file_id: str
    ) -> tuple[FileObject, AsyncGenerator[bytes]]:
        """The file, and its bytes, to be closed when they are not read to the end."""
        file = await self._find(principal, file_id)
        with answering_for_storage():
            if not await self._objects.exists(file.object_key):
                raise NotFound(f"the content of {file_id} is gone from the object store")
        return file_object(file), self._objects.get(file.object_key)

    async def _find(self, principal: Principal, file_id: str) -> File:
        file = await self._db.read(
            lambda session: files.get(session, principal.project_id, file_id)
        )
        if file is None:
            raise _unknown(file_id)
        return file

    async def _receive(self, form: AsyncIterator[Part], key: str) -> _Upload:
        stored: Stored | None = None
        filename: str | None = None
        purpose: str | None = None
        async for part in form:
            match part.name:
                case "file" if stored is None:
                    filename = part.filename
                    with answering_for_storage():
                        stored = await self._objects.put(key, part.data, MAX_BATCH_BYTES)
                case "purpose" if purpose is None:
                    purpose = await _text(part)
                case "file" | "purpose":
                    raise _refused(part.name, f"'{part.name}' is given more than once")
                case name:
                    raise BadRequest(
                        f"Unsupported parameter: '{name[:64]}'. This server does not honour it; "
                        "remove it.",
                        code="unsupported_parameter",
                        param=name[:64],
                    )
        if stored is None:
            raise _missing("file")
        if purpose is None:
            raise _missing("purpose")
        if purpose != "batch":
            raise _refused("purpose", f"expected 'batch', got {purpose[:64]!r}")
        return _Upload(_plain_name(filename), purpose, stored)


@dataclass(frozen=True)
class _Upload:
    filename: str
    purpose: str
    stored: Stored


def _row(principal: Principal, file_id: str, key: str, upload: _Upload) -> File:
    return File(
        id=file_id,
        project_id=principal.project_id,
        filename=upload.filename,
        purpose=upload.purpose,
        bytes=upload.stored.bytes,
        sha256=upload.stored.sha256,
        object_key=key,
    )


def _plain_name(given: str | None) -> str:
    """The last part of the path that a client sent, without what cannot be printed."""
    name = PurePosixPath((given or "").replace("\\", "/")).name
    shown = "".join(char for char in name if char.isprintable())
    return shown[:MAX_NAME_CHARS] or "upload.jsonl"


async def _text(part: Part) -> str:
    value = bytearray()
    async for piece in part.data:
        value += piece
        if len(value) > MAX_FIELD_BYTES:
            raise _refused(part.name, f"longer than {MAX_FIELD_BYTES} bytes")
    return value.decode("utf-8", "replace")


def _missing(name: str) -> BadRequest:
    return BadRequest(
        f"Missing required parameter: '{name}' (a part of the form).",
        code="missing_parameter",
        param=name,
    )


def _refused(name: str, why: str) -> BadRequest:
    return BadRequest(f"Invalid value for '{name}': {why}.", param=name)


def _unknown(file_id: str) -> NotFound:
    return NotFound(f"there is no file {file_id[:64]!r} in this project")
