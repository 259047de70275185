"""A tar file with a manifest as its last member: written whole or not at all, read twice.

It is read once to be checked, and again to be used, so that nothing is touched for an archive that
is damaged or was cut short. Memory does not grow with the number of members.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ValidationError

from tidegate_controlplane.backup.contents import FORMAT, MANIFEST, Entry, Summary
from tidegate_controlplane.durable import sync
from tidegate_controlplane.errors import BackupError

PIECE_BYTES = 1024 * 1024
PRIVATE = 0o600


class ArchiveWriter:
    """A draft beside `path`, readable by its owner only, that `finish` turns into the archive."""

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise BackupError(f"{path} exists already; name a new file")
        self._path = path
        try:
            descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        except OSError as error:
            raise BackupError(f"cannot write {path}: {error.strerror}") from error
        self._draft = Path(draft)
        self._file = os.fdopen(descriptor, "wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._entries = self.spool()

    def spool(self) -> IO[bytes]:
        """A nameless file beside the archive: as much room as the archive needs."""
        return tempfile.TemporaryFile(dir=self._path.parent)

    def add(self, name: str, content: IO[bytes]) -> None:
        """The whole of a seekable file."""
        size = content.seek(0, os.SEEK_END)
        content.seek(0)
        counted = _Digest(content)
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, PRIVATE
        self._tar.addfile(member, counted)
        _forget(self._tar)
        entry = Entry(name=name, bytes=size, sha256=counted.hexdigest())
        self._entries.write(_line(entry))

    def add_bytes(self, name: str, content: bytes) -> None:
        self.add(name, BytesIO(content))

    def add_lines(self, name: str, lines: Iterable[bytes]) -> int:
        """Lines as they come; returns how many there were."""
        number = 0
        with self.spool() as spool:
            for line in lines:
                spool.write(line)
                number += 1
            self.add(name, spool)
        return number

    def finish(self, summary: Summary) -> None:
        """Write the manifest, and publish the archive durably."""
        with self.spool() as spool:
            spool.write(_line(summary))
            self._entries.seek(0)
            for line in self._entries:
                spool.write(line)
            self.add(MANIFEST, spool)
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._draft.replace(self._path)
        sync(self._path.parent)

    def close(self) -> None:
        """Also removes the draft, unless it was published."""
        self._entries.close()
        self._file.close()
        self._draft.unlink(missing_ok=True)


def verify(path: Path) -> Summary:
    """Read the whole archive once. Raises BackupError unless each member is as it was written."""
    with _said_plainly(path), tempfile.TemporaryFile() as found:
        for name, content in members(path):
            if name == MANIFEST:
                return _checked(path, found, content)
            digest, size = hashlib.sha256(), 0
            while piece := content.read(PIECE_BYTES):
                digest.update(piece)
                size += len(piece)
            found.write(_line(Entry(name=name, bytes=size, sha256=digest.hexdigest())))
    raise BackupError(f"{path} has no manifest: it is no backup, or was cut short")


def members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each member, in order; read one before the next is asked for."""
    with _said_plainly(path), tarfile.open(path, "r:") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                raise BackupError(f"{path}: member {member.name!r} is no file; this is no backup")
            yield member.name, content
            _forget(tar)


def _checked(path: Path, found: IO[bytes], manifest: IO[bytes]) -> Summary:
    summary = _summary(path, manifest.readline())
    found.seek(0)
    for there, wanted in zip_longest(found, manifest):
        if there != wanted:
            name = Entry.model_validate_json(there or wanted or b"").name
            raise BackupError(
                f"{path} is damaged: member {name!r} is not as its manifest says; use another copy"
            )
    return summary


def _summary(path: Path, line: bytes) -> Summary:
    try:
        summary = Summary.model_validate_json(line)
    except ValidationError as error:
        raise BackupError(f"{path}: its manifest cannot be read; is it of this format?") from error
    if summary.format != FORMAT:
        raise BackupError(
            f"{path} has format {summary.format}, and this version reads {FORMAT}; "
            f"use Tidegate {summary.tidegate}"
        )
    return summary


def _forget(tar: tarfile.TarFile) -> None:
    """A tar file remembers every member that it has seen, for look-ups that are not made here."""
    tar.members = []  # type: ignore[attr-defined]


@contextmanager
def _said_plainly(path: Path) -> Iterator[None]:
    try:
        yield
    except tarfile.TarError as error:
        raise BackupError(f"{path} is no backup, or was cut short: {error}") from error
    except OSError as error:
        raise BackupError(f"cannot read {path}: {error.strerror or error}") from error


def _line(value: BaseModel) -> bytes:
    return value.model_dump_json().encode() + b"\n"


class _Digest:
    """A file that is hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        piece = self._file.read(size)
        self._digest.update(piece)
        return piece

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
