"""Bytes into numbered lines, in bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

GROUP_LINES = 500
GROUP_BYTES = 2 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Line:
    """One line of a file, from 1, without its ending."""

    number: int
    text: bytes | None
    """None when it is longer than a line may be."""
    fault: str | None = None
    """Why there is nothing to read in it."""

    @property
    def is_blank(self) -> bool:
        return self.fault is None and self.text is not None and not self.text.strip()


async def split(pieces: AsyncIterator[bytes], max_line_bytes: int) -> AsyncIterator[Line]:
    """Every line, blank ones too; at most `max_line_bytes` and one piece are held.

    LF ends a line, a CR before it is dropped, and so is a byte order mark at the beginning.
    """
    number = 1
    rest = b""
    too_long = False
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for text in whole:
            yield _line(number, text, max_line_bytes, too_long=too_long)
            number += 1
            too_long = False
        if len(rest) > max_line_bytes:
            rest, too_long = b"", True
    if rest or too_long:
        yield _line(number, rest, max_line_bytes, too_long=too_long)


async def groups(lines: AsyncIterator[Line], most: int = GROUP_LINES) -> AsyncIterator[list[Line]]:
    """Lines that are not blank, `most` at a time: as many as one transaction should insert."""
    group: list[Line] = []
    size = 0
    async for line in lines:
        if line.is_blank:
            continue
        group.append(line)
        size += len(line.text or b"")
        if len(group) >= most or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _line(number: int, text: bytes, max_line_bytes: int, *, too_long: bool) -> Line:
    if number == 1:
        text = text.removeprefix(_BOM)
    text = text.removesuffix(b"\r")
    return Line(number, None if too_long or len(text) > max_line_bytes else text)
