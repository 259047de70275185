"""From a source to files on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tidegate.local.model_files import local_digest
from tidegate.spec import SourceKind, parse_source
from tidegate_runtime.artifact.check import ModelFiles, check_path
from tidegate_runtime.errors import ModelRefused


@dataclass(frozen=True)
class Resolved:
    """A source's files on this machine, and the digest of the model as its control plane has it."""

    source: str
    revision: str | None
    files: ModelFiles
    digest: str


def resolve(source: str, revision: str | None, cache_dir: Path) -> Resolved:
    """Fetch what is not here yet, check what is, and take its digest.

    Raises ModelRefused when the source can never be served and ReplicaUnavailable when it cannot
    be reached now.
    """
    try:
        parsed = parse_source(source, revision)
    except ValueError as error:
        raise ModelRefused("SourceNotFound", str(error)) from error
    if parsed.kind is SourceKind.S3:
        from tidegate_runtime.artifact.s3 import fetch_s3

        path, digest = fetch_s3(parsed.location, cache_dir)
        return Resolved(source, revision, check_path(path), digest)
    if parsed.kind is SourceKind.HUB:
        from tidegate_runtime.artifact.hub import fetch_hub

        path, digest = fetch_hub(parsed.location, parsed.revision, cache_dir)
        return Resolved(source, revision, check_path(path), digest)
    path = Path(parsed.location)
    files = check_path(path)
    try:
        return Resolved(source, revision, files, local_digest(path))
    except OSError as error:
        raise ModelRefused(
            "SourceNotFound", f"model source {source!r} cannot be read: {error}"
        ) from error


def check_digest(resolved: Resolved, expected: str | None) -> None:
    """Refuse a source that is not what was planned. Raises ModelRefused (SourceChanged)."""
    if expected is not None and resolved.digest != expected:
        raise ModelRefused(
            "SourceChanged",
            f"model source {resolved.source!r} has the digest {resolved.digest}, and the plan was "
            f"made for {expected}; its files have changed since: deploy it again",
        )
