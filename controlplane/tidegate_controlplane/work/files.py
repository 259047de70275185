"""Files: what batches read and write, under OpenAI's shapes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from pydantic import ValidationError
from sqlmodel import Session

from tidegate.protocol.batch import ExpiresAfter
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
from tidegate_controlplane.work.storage import answering_for_storage, check_still_there
from tidegate_controlplane.work.views import file_object

MAX_FIELD_BYTES = 1024
ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
FIELDS = frozenset({"purpose", ANCHOR, SECONDS})
DEFAULT_EXPIRY_S = 30 * 86_400
"""Of an uploaded file that names none, as at OpenAI."""
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

    def __init__(
        self, db: Database, objects: ObjectStore, clock: Clock, orphan_grace_s: float
    ) -> None:
        self._db = db
        self._objects = objects
        self._clock = clock
        self._orphan_grace_s = orphan_grace_s

    async def create(self, principal: Principal, form: AsyncIterator[Part]) -> FileObject:
        """Keep the `file` part of `form`, whose `purpose` must be `batch`, for 30 days or as asked.

        The bytes go to the object store as they come. Raises BadRequest naming the part that is
        missing or wrong, TooLarge, Unavailable; nothing is kept then.
        """
        file_id = new_id("file")
        key = file_key(principal.project_id, file_id)
        try:
            upload = await self._receive(form, key)
            file = _row(principal, file_id, key, upload, self._clock.now())
            # failpoint file.stored
            await self._db.write(lambda session: self._insert(session, file, upload))
            # failpoint file.committed
        except BaseException:
            # Asked of the writer, so after an insertion that a cancellation left on its way.
            if await self._db.write(lambda session: session.get(File, file_id)) is None:
                await self._objects.delete(key)
            raise
        return file_object(file)

    async def get(self, principal: Principal, file_id: str) -> FileObject:
        return file_object(await self._find(principal, file_id))

    async def list(self, principal: Principal, wanted: files.Page) -> FileList:
        check_cursor(wanted.after, "file")
        now = self._clock.now()
        rows = await self._db.read(
            lambda session: files.page(session, principal.project_id, now, wanted)
        )
        data = [file_object(row) for row in rows[: wanted.limit]]
        return FileList(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=len(rows) > wanted.limit,
        )

    async def delete(self, principal: Principal, file_id: str) -> FileDeleted:
        """Raises Conflict while an unfinished batch reads the file."""
        now = self._clock.now()

        def unit(session: Session) -> File:
            file = files.get(session, principal.project_id, file_id, now)
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

    def _insert(self, session: Session, file: File, upload: _Upload) -> None:
        check_still_there(upload.stored_at, self._clock.monotonic(), self._orphan_grace_s)
        files.insert(session, file)

    async def _find(self, principal: Principal, file_id: str) -> File:
        now = self._clock.now()
        file = await self._db.read(
            lambda session: files.get(session, principal.project_id, file_id, now)
        )
        if file is None:
            raise _unknown(file_id)
        return file

    async def _receive(self, form: AsyncIterator[Part], key: str) -> _Upload:
        stored: Stored | None = None
        stored_at = 0.0
        filename: str | None = None
        fields: dict[str, str] = {}
        async for part in form:
            if part.name in fields or (part.name == "file" and stored is not None):
                raise _refused(part.name, f"'{part.name}' is given more than once")
            if part.name == "file":
                filename = part.filename
                with answering_for_storage():
                    stored = await self._objects.put(key, part.data, MAX_BATCH_BYTES)
                stored_at = self._clock.monotonic()
            elif part.name in FIELDS:
                fields[part.name] = await _text(part)
            else:
                raise BadRequest(
                    f"Unsupported parameter: '{part.name[:64]}'. This server does not honour it; "
                    "remove it.",
                    code="unsupported_parameter",
                    param=part.name[:64],
                )
        if stored is None:
            raise _missing("file")
        return _Upload(
            _plain_name(filename), _purpose(fields), _expires_after_s(fields), stored, stored_at
        )


@dataclass(frozen=True)
class _Upload:
    filename: str
    purpose: str
    expires_after_s: int
    stored: Stored
    stored_at: float
    """When its last byte was (monotonic seconds)."""


def _row(principal: Principal, file_id: str, key: str, upload: _Upload, now: datetime) -> File:
    return File(
        id=file_id,
        project_id=principal.project_id,
        filename=upload.filename,
        purpose=upload.purpose,
        bytes=upload.stored.bytes,
        sha256=upload.stored.sha256,
        object_key=key,
        created_at=now,
        expires_at=now + timedelta(seconds=upload.expires_after_s),
    )


def _purpose(fields: Mapping[str, str]) -> str:
    purpose = fields.get("purpose")
    if purpose is None:
        raise _missing("purpose")
    if purpose != "batch":
        raise _refused("purpose", f"expected 'batch', got {purpose[:64]!r}")
    return purpose


def _expires_after_s(fields: Mapping[str, str]) -> int:
    anchor, seconds = fields.get(ANCHOR), fields.get(SECONDS)
    if anchor is None and seconds is None:
        return DEFAULT_EXPIRY_S
    if anchor is None or seconds is None:
        raise _missing(ANCHOR if anchor is None else SECONDS)
    given = int(seconds) if seconds.isdecimal() else seconds
    try:
        return ExpiresAfter.model_validate({"anchor": anchor, "seconds": given}).seconds
    except ValidationError as error:
        [first, *_] = error.errors()
        name = f"expires_after[{first['loc'][0]}]"
        raise _refused(name, f"{first['msg']} (got {fields[name][:64]!r})") from None


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
