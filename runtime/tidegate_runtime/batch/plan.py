"""What a job has to do: its input cut into chunks, less those that an earlier run has finished.

The input is read once before any line runs, so that a repeated id is found before it costs
anything. A chunk is finished when its checkpoint exists; its name tells the object, its version and
the lines, so one listing says what is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tidegate_runtime.batch.bucket import OBJECT_SUFFIX, Bucket, Found
from tidegate_runtime.batch.lines import Line, custom_id, split
from tidegate_runtime.errors import InputRefused

CHUNK_LINES = 256
"""Lines that an interruption may cost. Another number finds none of the chunks of this one."""
CHECKPOINTS = "checkpoints/"


@dataclass(frozen=True)
class Chunk:
    """Some lines of an object that follow each other: first and last number, bytes from and to."""

    item: Found
    first: int
    last: int
    start: int
    end: int

    @property
    def name(self) -> str:
        """Below `results/` and `errors/`."""
        return f"{self.item.name}/{self.first:08d}-{self.last:08d}.jsonl"

    @property
    def checkpoint(self) -> str:
        return (
            f"{CHECKPOINTS}{self.item.name}/{self.item.etag}/{self.first:08d}-{self.last:08d}.json"
        )


def chunks_of(source: Bucket) -> list[Chunk]:
    """The whole input in chunks. Raises InputRefused for none, and for an id used twice."""
    first_of: dict[str, str] = {}
    found: list[Chunk] = []
    for item in source.find():
        if item.name.endswith(OBJECT_SUFFIX):
            lines = split(source.blocks(item), item.key) if item.size_bytes else ()
            found.extend(_cut(item, _unique(item, iter(lines), first_of)))
    if not found:
        raise InputRefused(
            f"input: {source.url!r} has no .jsonl object with a line in it; upload one, or check "
            "the prefix"
        )
    return found


def left_of(chunks: list[Chunk], target: Bucket) -> list[Chunk]:
    """The chunks without a checkpoint. Raises InputRefused when what is there is of other input."""
    done = {item.name for item in target.find(CHECKPOINTS)}
    known = {chunk.checkpoint for chunk in chunks}
    for name in sorted(done - known):
        raise InputRefused(
            f"output: {target.url!r} has {name!r} of an input that is no longer there or has "
            "changed since; write to another place, or remove what is in this one"
        )
    return [chunk for chunk in chunks if chunk.checkpoint not in done]


def _cut(item: Found, lines: Iterator[Line]) -> Iterator[Chunk]:
    held: list[Line] = []
    for line in lines:
        held.append(line)
        if len(held) == CHUNK_LINES:
            yield _chunk(item, held)
            held = []
    if held:
        yield _chunk(item, held)


def _chunk(item: Found, lines: list[Line]) -> Chunk:
    first, last = lines[0], lines[-1]
    return Chunk(item, first.number, last.number, first.start, last.end)


def _unique(item: Found, lines: Iterator[Line], first_of: dict[str, str]) -> Iterator[Line]:
    for line in lines:
        if given := custom_id(line.text):
            place = f"{item.key} line {line.number}"
            if (first := first_of.setdefault(given, place)) != place:
                raise InputRefused(
                    f"input: {place}: custom_id {given[:80]!r} is that of {first} already; give "
                    "every line its own"
                )
        yield line
