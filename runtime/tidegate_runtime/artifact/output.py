"""The directory that a command is to make: refused before the work, not after it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tidegate_runtime.errors import ModelRefused


def check_output(output: Path) -> None:
    """See that `output` is new and that the directory for it, which is made, can be written.

    Raises ModelRefused (OutputExists, OutputUnwritable).
    """
    try:
        if output.exists():
            raise ModelRefused(
                "OutputExists", f"--output {str(output)!r} is there already; name a new directory"
            )
        output.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent).cleanup()
    except OSError as error:
        raise ModelRefused(
            "OutputUnwritable",
            f"--output {str(output)!r} cannot be made: {error.strerror}; name a directory that you "
            "may write",
        ) from error
