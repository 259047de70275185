"""A model on the Hugging Face hub, pinned to a commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from huggingface_hub import HfApi, HfFileSystem
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from tidegate_controlplane.models.source import SourceError

TIMEOUT_S = 15.0
FAULTS = (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, OSError, ValueError)


class HubFiles:
    """Implements `ModelFiles` for `org/name`."""

    def __init__(self, repo: str, revision: str | None) -> None:
        self._repo = repo
        try:
            self._info: Any = HfApi().model_info(
                repo, revision=revision, files_metadata=True, timeout=TIMEOUT_S
            )
        except FAULTS as error:
            wanted = f" at {revision!r}" if revision else ""
            raise SourceError(
                f"cannot read 'hf://{repo}'{wanted}: {_first_line(error)}; check the name, the "
                "revision, the network and HF_TOKEN"
            ) from error

    @property
    def revision(self) -> str | None:
        return str(self._info.sha)

    def listing(self) -> Mapping[str, int]:
        return {file.rfilename: file.size or 0 for file in self._info.siblings}

    def fingerprint(self, name: str) -> str:
        file = next(file for file in self._info.siblings if file.rfilename == name)
        return str(file.lfs.sha256 if file.lfs else file.blob_id)

    def read(self, name: str, start: int, length: int) -> bytes:
        path = f"{self._repo}@{self.revision}/{name}"
        try:
            with HfFileSystem().open(path, "rb") as file:
                file.seek(start)
                content: bytes = file.read(length)
        except FAULTS as error:
            raise SourceError(f"cannot read 'hf://{path}': {_first_line(error)}") from error
        return content


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
