"""What a disk may hold after the power went: crash states, made from a journal.

A write is durable once a sync of its file began after it and ended; a name (made, moved or taken
away) once a sync of its folder did. Until then each may be there or not, in any combination, and of
a write each sector. SQLite syncs the folder of a file that it made with that file's first sync, so
for its files the name is durable with the content.

Source of the model: "All File Systems Are Not Created Equal" (Pillai et al., OSDI 2014), ALICE.
"""

from __future__ import annotations

import random
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.journal import Op

SECTOR_BYTES = 512
LOST, NAMES, SOME = "lost", "names", "some"
"""What becomes of what was not synced: nothing of it is there; only names are, of files that are
empty; some of it, by chance."""


@dataclass
class Disk:
    """A disk as it is known to be, and what may be on it besides."""

    contents: defaultdict[int, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    names: dict[str, int] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    unsynced: list[tuple[int, Op]] = field(default_factory=list)
    """With their numbers, in their order."""
    touched: set[str] = field(default_factory=set)
    """Every path that ever had something to do with it."""

    def apply(self, op: Op) -> None:
        """It is durable."""
        match op.kind:
            case "write":
                content = self.contents[op.inode]
                content.extend(bytes(max(0, op.offset - len(content))))
                content[op.offset : op.offset + len(op.data)] = op.data
            case "truncate":
                content = self.contents[op.inode]
                content.extend(bytes(max(0, op.offset - len(content))))
                del content[op.offset :]
            case "link":
                self.names[op.path] = op.inode
            case "unlink":
                self.names.pop(op.path, None)
            case "mkdir":
                self.folders.add(op.path)

    def settle(self, covers: int, inode: int, folder: str) -> None:
        """A sync of a file, or of a folder, ended: what it covers is durable."""
        rest = []
        for number, op in self.unsynced:
            of_file = inode and op.inode == inode and op.kind != "unlink"
            of_folder = op.kind in _NAMING and str(Path(op.path).parent) == folder
            if number < covers and (of_file if inode else of_folder):
                self.apply(op)
            else:
                rest.append((number, op))
        self.unsynced = rest


_NAMING = frozenset({"link", "unlink", "mkdir"})


def disk_at(ops: Sequence[Op], number: int, recorded: Path, base: Path) -> Disk:
    """The disk when the power goes before operation `number` ends.

    `recorded` is where the journal's process had its data directory, `base` a copy of how that was
    before.
    """
    disk = Disk()
    for index, op in enumerate(ops[:number]):
        disk.touched |= {op.path, op.to} - {""}
        match op.kind:
            case "known":
                place = base / Path(op.path).relative_to(recorded)
                disk.contents[op.inode][:] = place.read_bytes()
                disk.names[op.path] = op.inode
            case "sync":
                disk.settle(op.covers, op.inode, "")
            case "sync_folder":
                disk.settle(op.covers, 0, op.path)
            case "rename":
                disk.unsynced.append((index, Op("link", op.at, op.to, op.inode)))
                disk.unsynced.append((index, Op("unlink", op.at, op.path)))
            case _:
                disk.unsynced.append((index, op))
    return disk


def lose_power(disk: Disk, how: str, chance: random.Random) -> None:
    """Decide what of the unsynced is there; afterwards nothing is unsynced."""
    for _, op in disk.unsynced:
        if how == SOME and chance.random() < 0.5:
            for piece in _torn(op, chance) if op.kind == "write" else [op]:
                disk.apply(piece)
        elif how == NAMES and op.kind in _NAMING:
            disk.apply(op)
    disk.unsynced = []


def _torn(op: Op, chance: random.Random) -> list[Op]:
    """Some sectors of a write; now and then all."""
    if chance.random() < 0.5:
        return [op]
    starts = range(0, len(op.data), SECTOR_BYTES)
    return [
        Op("write", op.at, op.path, op.inode, op.offset + at, op.data[at : at + SECTOR_BYTES])
        for at in starts
        if chance.random() < 0.5
    ]


def write_out(disk: Disk, recorded: Path, base: Path, target: Path) -> None:
    """Make `target` the data directory that is found when the power is back; as `disk_at`."""
    shutil.copytree(base, target)
    for folder in sorted(disk.folders):
        place = target / Path(folder).relative_to(recorded)
        if place.parent.is_dir():
            place.mkdir(exist_ok=True)
    for path in disk.touched - disk.folders:
        place = target / Path(path).relative_to(recorded)
        if not place.is_dir():
            place.unlink(missing_ok=True)
    for path, inode in disk.names.items():
        place = target / Path(path).relative_to(recorded)
        if place.parent.is_dir():
            place.write_bytes(disk.contents[inode])
