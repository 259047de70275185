"""From a source to files on this machine."""

from __future__ import annotations

from pathlib import Path

from tidegate.spec import SourceKind, parse_source
from tidegate_runtime.artifact.check import ModelFiles, check_path
from tidegate_runtime.errors import ModelRefused


def resolve(source: str, revision: str | None, cache_dir: Path) -> ModelFiles:
    """Fetch what is not here yet, and check what is.

    Raises ModelRefused when the source can never be served and ReplicaUnavailable when it cannot
    be reached now.
    """
    try:
        parsed = parse_source(source, revision)
    except ValueError as error:
        raise ModelRefused("SourceNotFound", str(error)) from error
    if parsed.kind is SourceKind.S3:
        from tidegate_runtime.artifact.s3 import fetch_s3

        return check_path(fetch_s3(parsed.location, cache_dir))
    if parsed.kind is SourceKind.HUB:
        from tidegate_runtime.artifact.hub import fetch_hub

        return check_path(fetch_hub(parsed.location, parsed.revision, cache_dir))
    return check_path(Path(parsed.location))
