"""Build and measure artifacts and train heads, in a child process: only the runtime has torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from tidegate.local.command import require_installed, run_command, run_told
from tidegate.protocol.compress import CompressProgress

MODULE = "tidegate_runtime"
NEEDED = (MODULE, "torch", "transformers", "safetensors", "gguf")


def run_artifact_command(*arguments: str) -> dict[str, Any]:
    """Run `python -m tidegate_runtime.artifact` and return its result. Raises LocalError."""
    require_installed("runtime", NEEDED, "runtime")
    return run_command(arguments[0], f"{MODULE}.artifact", [*arguments, "--json"])


def run_distill_command(*arguments: str) -> dict[str, Any]:
    """Run `python -m tidegate_runtime.distill` and return its result. Raises LocalError."""
    require_installed("runtime", NEEDED, "runtime")
    return run_command("distill", f"{MODULE}.distill", [*arguments, "--json"])


def run_compress(
    *arguments: str, advance: Callable[[CompressProgress], None], say: Callable[[str], None]
) -> dict[str, Any]:
    """Run its command `compress`: `advance` is told of every step, `say` of all other lines.

    Returns the report. Raises LocalError.
    """
    require_installed("runtime", NEEDED, "runtime")

    def told(line: str) -> None:
        try:
            progress = CompressProgress.model_validate_json(line)
        except ValidationError:
            say(line)
        else:
            advance(progress)

    program = ["compress", *arguments, "--progress", "--json"]
    return run_told("compress", f"{MODULE}.artifact", program, told)
