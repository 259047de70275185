"""A data directory: where a platform on this machine keeps everything and says where it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidegate.connection import Connection
from tidegate.errors import LocalError
from tidegate.local.process import ProcessId, read_pid_file


def default_data(environment: Mapping[str, str]) -> Path:
    """`$XDG_DATA_HOME/tidegate`, `~/.local/share` when unset."""
    base = environment.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "tidegate"


@dataclass(frozen=True)
class Home:
    """One data directory, absolute."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> Home:
        """The directory as an absolute path; it need not exist."""
        return cls(path.expanduser().resolve())

    @property
    def connection_file(self) -> Path:
        return self.path / "connection.json"

    @property
    def log_file(self) -> Path:
        return self.path / "controlplane.log"

    def create(self) -> None:
        """Make the directory, for its owner only; raises LocalError when that is not possible."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise LocalError(
                f"the data directory {self.path} cannot be made ({error.strerror}); "
                "choose another with --data"
            ) from error

    def process(self) -> ProcessId | None:
        """The platform that runs on this directory, None when none does."""
        found = read_pid_file(self.path / "controlplane.pid")
        return found if found and found.is_alive else None

    def connection(self) -> Connection | None:
        """Where the platform says that it listens; None before it has said so."""
        try:
            data = json.loads(self.connection_file.read_text(encoding="utf-8"))
            return Connection(str(data["url"]), str(data["api_key"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def connection_stamp(self) -> tuple[int, int] | None:
        """Changes whenever the connection file is written anew."""
        try:
            status = self.connection_file.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns
