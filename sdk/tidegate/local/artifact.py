"""Build and measure artifacts in a child process: only the runtime imports torch."""

from __future__ import annotations

from typing import Any

from tidegate.local.command import require_installed, run_command

MODULE = "tidegate_runtime"
NEEDED = (MODULE, "torch", "transformers", "safetensors", "gguf")


def run_artifact_command(*arguments: str) -> dict[str, Any]:
    """Run `python -m tidegate_runtime.artifact` and return its result. Raises LocalError."""
    require_installed("runtime", NEEDED, "runtime")
    return run_command(arguments[0], f"{MODULE}.artifact", [*arguments, "--json"])
