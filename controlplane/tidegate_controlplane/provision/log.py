"""Read the log of a replica: its last line, or whole lines from an offset; and bound its size.

A replica appends to its log, and readers keep byte offsets into it. So the file is never rotated:
the disk space of its beginning is given back as a hole, and every offset means what it did.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from tidegate.protocol.resources import LogLine
from tidegate.telemetry.logs import parsed

LINE_BYTES = 16 * 1024
"""A longer line is cut into several."""
KEPT_BYTES = 8 * 1024 * 1024
"""Of a log's end at least; it takes twice that on disk at most."""
BLOCK_BYTES = 4096
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # linux/falloc.h
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})


def last_line(path: Path) -> str:
    """What the last line says, for instance the error of a traceback; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - LINE_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return _words_of(lines[-1]) if lines else ""


def _words_of(text: str) -> str:
    line = parsed(text)
    if line is None:
        return text
    error = str(line.get("error", "")).splitlines()
    return ": ".join([str(line["message"]), *error[-1:]])


def read_lines(path: Path, replica_id: str, offset: int, limit: int) -> list[LogLine]:
    """At most `limit` lines from a byte offset; the last one only when it is whole.

    When the bytes there were given back, the first whole line after them.
    """
    lines: list[LogLine] = []
    try:
        with path.open("rb") as file:
            if file.seek(os.lseek(file.fileno(), offset, os.SEEK_DATA)) > offset:
                file.readline()
            while len(lines) < limit and (line := file.readline(LINE_BYTES)):
                if not line.endswith(b"\n") and len(line) < LINE_BYTES:
                    break
                text = line.decode(errors="replace").rstrip("\n")
                lines.append(LogLine(replica=replica_id, offset=file.tell(), text=text))
    except OSError:
        return lines
    return lines


def bound(path: Path, kept_bytes: int = KEPT_BYTES) -> None:
    """Give back the disk space of all but the last `kept_bytes`, once twice that is taken.

    Where the file system cannot, nothing changes. Raises OSError.
    """
    if not path.exists():
        return
    with path.open("r+b") as file:
        status = os.fstat(file.fileno())
        if status.st_blocks * 512 <= 2 * kept_bytes:
            return
        before = (status.st_size - kept_bytes) // BLOCK_BYTES * BLOCK_BYTES
        if before > 0:
            _punch(file.fileno(), before)


def _punch(descriptor: int, length_bytes: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    mode = ctypes.c_int(_PUNCH_HOLE | _KEEP_SIZE)
    done = libc.fallocate(descriptor, mode, ctypes.c_int64(0), ctypes.c_int64(length_bytes))
    if done != 0 and (number := ctypes.get_errno()) not in _UNSUPPORTED:
        raise OSError(number, os.strerror(number))
