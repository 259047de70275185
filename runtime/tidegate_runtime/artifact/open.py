"""Open an artifact: every byte is what the manifest says, or it is refused by file name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from tidegate_runtime.artifact.manifest import (
    FORMAT,
    MANIFEST,
    PACKING,
    PART_BYTES,
    WEIGHTS,
    FileEntry,
    Manifest,
)
from tidegate_runtime.errors import ModelRefused

_THREADS = 8


@dataclass(frozen=True)
class Artifact:
    """A verified artifact: its directory and its manifest."""

    root: Path
    manifest: Manifest

    @property
    def weights(self) -> Path:
        """The packed weights, to be mapped into memory."""
        return self.root / WEIGHTS


def is_artifact(path: Path) -> bool:
    """Whether a directory claims to be an artifact."""
    return (path / MANIFEST).is_file()


def open_artifact(root: Path) -> Artifact:
    """Read the manifest and verify every file by its digest.

    Raises ModelRefused: DamagedArtifact, UnknownFormat.
    """
    manifest = read_manifest(root)
    _check_names(root, manifest)
    jobs = [job for name, entry in manifest.files.items() for job in _jobs(root, name, entry)]
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for job, found in zip(jobs, pool.map(_digest, jobs), strict=True):
            if found != job.expected:
                raise damaged(
                    job.path,
                    f"its bytes {job.start} to {job.start + job.length} have the digest {found}, "
                    f"and {job.expected} was expected",
                )
    return Artifact(root, manifest)


def read_manifest(root: Path) -> Manifest:
    """The manifest, whose files are not verified yet. Raises ModelRefused."""
    path = root / MANIFEST
    if path.is_symlink():
        raise damaged(path, "it is a link, and an artifact holds its own files")
    try:
        raw = json.loads(path.read_bytes())
        version, packing = raw["format"], raw["packing"]
    except FileNotFoundError:
        raise damaged(path, "it is missing, so this is no artifact") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(path, f"it is not a manifest ({type(error).__name__}: {error})") from error
    if (version, packing) != (FORMAT, PACKING):
        raise ModelRefused(
            "UnknownFormat",
            f"the artifact {str(root)!r} has format {version!r} and packing {packing!r}, and this "
            f"version of tidegate reads {FORMAT} and {PACKING}; build it again",
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise damaged(path, f"{where}: {first['msg']}") from error


def describe_file(path: Path) -> FileEntry:
    """The entry of a file that was just written."""
    jobs = [_Job(path, 0, path.stat().st_size, ""), *_parts(path)]
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        whole, *parts = pool.map(_digest, jobs)
    return FileEntry(bytes=jobs[0].length, sha256=whole, parts=parts)


def damaged(path: Path, what: str) -> ModelRefused:
    """The refusal of one file."""
    return ModelRefused(
        "DamagedArtifact", f"the artifact's file {str(path)!r} is damaged: {what}; build it again"
    )


@dataclass(frozen=True)
class _Job:
    path: Path
    start: int
    length: int
    expected: str


def _check_names(root: Path, manifest: Manifest) -> None:
    """Every file is listed, is the artifact's own, and has its size."""
    if WEIGHTS not in manifest.files:
        raise damaged(root / MANIFEST, f"it does not list {WEIGHTS}")
    for name, entry in manifest.files.items():
        path = root / name
        if path.name != name or name == MANIFEST:
            raise damaged(root / MANIFEST, f"it lists {name!r}, which is no file of its own")
        if path.is_symlink():
            raise damaged(path, "it is a link, and an artifact holds its own files")
        if not path.is_file():
            raise damaged(path, "it is missing")
        if (size := path.stat().st_size) != entry.bytes:
            raise damaged(path, f"it has {size} bytes, and {entry.bytes} were expected")
    for path in root.iterdir():
        if path.name not in manifest.files and path.name != MANIFEST:
            raise damaged(
                path, "the manifest does not list it, so it does not belong here; remove it"
            )


def _jobs(root: Path, name: str, entry: FileEntry) -> list[_Job]:
    path = root / name
    if not entry.parts:
        return [_Job(path, 0, entry.bytes, entry.sha256)]
    parts = list(_parts(path))
    if len(parts) != len(entry.parts):
        raise damaged(path, f"it has {len(parts)} parts, and the manifest {len(entry.parts)}")
    return [
        _Job(part.path, part.start, part.length, expected)
        for part, expected in zip(parts, entry.parts, strict=True)
    ]


def _parts(path: Path) -> Iterator[_Job]:
    size = path.stat().st_size
    if size > PART_BYTES:
        for start in range(0, size, PART_BYTES):
            yield _Job(path, start, min(PART_BYTES, size - start), "")


def _digest(job: _Job) -> str:
    """sha256 of some bytes of a file; hashlib lets other threads run meanwhile."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(job.length, 1 << 20) or 1))
    left = job.length
    try:
        with job.path.open("rb", buffering=0) as file:
            file.seek(job.start)
            while left > 0 and (count := file.readinto(buffer[: min(left, len(buffer))])):
                digest.update(buffer[:count])
                left -= count
    except OSError as error:
        raise damaged(job.path, f"it cannot be read ({error.strerror})") from error
    return digest.hexdigest()
