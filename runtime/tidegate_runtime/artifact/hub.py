"""Models on a Hugging Face hub: pin the commit, check the names, fetch the snapshot.

`huggingface_hub` reads its endpoint and token from the environment (`HF_ENDPOINT`, `HF_TOKEN`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from tidegate.spec.source import model_digest
from tidegate_runtime.artifact.cache import publish_once
from tidegate_runtime.artifact.check import CHECKED_CONFIGS, check_listing
from tidegate_runtime.artifact.wanted import is_wanted
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable

# The hub library lets its HTTP client's errors through, and which client it has depends on its
# version; its own error names the client's as its first base.
_ClientError: type[Exception] = HfHubHTTPError.__bases__[0]
_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_DIGEST = ".digest"
"""Beside the files of a commit: the digest of the model, which needs the hub's word to compute."""


def fetch_hub(repo: str, revision: str | None, cache_dir: Path) -> tuple[Path, str]:
    """The directory of `org/name` at one commit, kept under that commit, and the model's digest.

    A revision that is a full commit and already here needs no network. Raises ModelRefused
    (SourceNotFound, SourceForbidden and what the check refuses) and ReplicaUnavailable.
    """
    source = f"hf://{repo}"
    if revision is not None and _COMMIT.match(revision):
        kept = cache_dir / _key(repo, revision)
        if (known := kept / _DIGEST).is_file():
            return kept, known.read_text()
    with _explained(source, revision):
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=30)
        commit = str(info.sha)
        names = [str(item.rfilename) for item in info.siblings or []]
        check_listing(source, names, {})
        wanted = [name for name in names if is_wanted(name)]
        digest = model_digest(
            (
                str(item.rfilename),
                item.size or 0,
                str(item.lfs.sha256 if item.lfs else item.blob_id),
            )
            for item in info.siblings or []
        )

        def fill(directory: Path) -> None:
            check_listing(source, names, _configs(repo, commit, names, directory))
            snapshot_download(
                repo, revision=commit, allow_patterns=wanted, local_dir=directory, max_workers=4
            )
            (directory / _DIGEST).write_text(digest)

        return publish_once(cache_dir, _key(repo, commit), fill), digest


def fetch_hub_files(
    repo: str,
    revision: str | None,
    cache_dir: Path,
    kind: str,
    choose: Callable[[str, Iterable[str]], list[str]],
) -> Path:
    """A directory with some of the files of `org/name` at one commit, kept under that and `kind`.

    `choose` gets the source and the names of its files. A revision that is a full commit and
    already here needs no network; None is the newest. Raises what `choose` raises, ModelRefused
    (SourceNotFound, SourceForbidden) and ReplicaUnavailable.
    """
    source = f"hf://{repo}"
    if revision is not None and _COMMIT.match(revision):
        kept = cache_dir / f"{_key(repo, revision)}.{kind}"
        if kept.is_dir():
            return kept
    with _explained(source, revision):
        info = HfApi().model_info(repo, revision=revision, timeout=30)
        commit = str(info.sha)
        chosen = choose(source, [str(item.rfilename) for item in info.siblings or []])

        def fill(directory: Path) -> None:
            snapshot_download(repo, revision=commit, allow_patterns=chosen, local_dir=directory)

        return publish_once(cache_dir, f"{_key(repo, commit)}.{kind}", fill)


@contextmanager
def _explained(source: str, revision: str | None) -> Iterator[None]:
    """What the hub's library raises becomes ModelRefused or ReplicaUnavailable."""
    try:
        yield
    except GatedRepoError as error:
        raise ModelRefused(
            "SourceForbidden",
            f"model source {source!r} is gated; accept its terms and set HF_TOKEN",
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelRefused(
            "SourceNotFound",
            f"model source {source!r} does not exist on the hub, or HF_TOKEN may not see it",
        ) from error
    except HfHubHTTPError as error:
        if error.response.status_code == HTTPStatus.NOT_FOUND:
            raise ModelRefused(
                "SourceNotFound", f"model source {source!r} has no revision {revision!r}"
            ) from error
        raise _unreachable(source, error) from error
    except (_ClientError, OSError) as error:
        raise _unreachable(source, error) from error


def _key(repo: str, commit: str) -> str:
    return f"hub/{repo.replace('/', '--')}/{commit}"


def _configs(repo: str, commit: str, names: list[str], directory: Path) -> dict[str, Any]:
    configs = {}
    for name in CHECKED_CONFIGS:
        if name in names:
            path = hf_hub_download(repo, name, revision=commit, local_dir=directory)
            value = json.loads(Path(path).read_bytes())
            configs[name] = value if isinstance(value, dict) else {}
    return configs


def _unreachable(source: str, error: Exception) -> ReplicaUnavailable:
    return ReplicaUnavailable(
        "SourceUnavailable", f"model source {source!r} cannot be reached: {error}"
    )
