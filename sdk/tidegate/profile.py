"""The profile: where the platform that was last started on this machine is.

`$XDG_CONFIG_HOME/tidegate/profile.json` (`~/.config` when unset), readable by its owner only.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tidegate.errors import ConfigurationError


@dataclass(frozen=True)
class Profile:
    """`data` is the platform's data directory, or None when it runs elsewhere."""

    url: str
    api_key: str
    data: str | None = None


def profile_path(environment: Mapping[str, str]) -> Path:
    """Where the profile is kept."""
    base = environment.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "tidegate" / "profile.json"


def read_profile(path: Path) -> Profile | None:
    """The profile, or None when there is none.

    Raises ConfigurationError when the file is there but is not a profile.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Profile(str(data["url"]), str(data["api_key"]), data.get("data"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path} is not a readable profile ({type(error).__name__}: {error}); remove it, "
            "or run 'tidegate up' to write a new one"
        ) from error


def write_profile(path: Path, profile: Profile) -> None:
    """Replace the profile at once, mode 0600, so that a reader sees the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".profile-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(profile), file, indent=2)
            file.write("\n")
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
