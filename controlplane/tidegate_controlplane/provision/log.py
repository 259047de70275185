"""Read the log of a replica: its last line, or whole lines from an offset."""

from __future__ import annotations

import os
from pathlib import Path

from tidegate.protocol.resources import LogLine
from tidegate.telemetry.logs import parsed

LINE_BYTES = 16 * 1024
"""A longer line is cut into several."""


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
    """At most `limit` lines from a byte offset; the last one only when it is whole."""
    lines: list[LogLine] = []
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while len(lines) < limit and (line := file.readline(LINE_BYTES)):
                if not line.endswith(b"\n") and len(line) < LINE_BYTES:
                    break
                text = line.decode(errors="replace").rstrip("\n")
                lines.append(LogLine(replica=replica_id, offset=file.tell(), text=text))
    except OSError:
        return []
    return lines
