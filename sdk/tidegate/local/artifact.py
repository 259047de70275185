"""Build and measure artifacts in a child process: only the runtime imports torch."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tidegate.errors import LocalError

MODULE = "tidegate_runtime"
NEEDED = (MODULE, "torch", "transformers", "safetensors", "gguf")
REMEDY = "pip install 'tidegate[runtime]'"


def run_artifact_command(*arguments: str) -> dict[str, Any]:
    """Run `python -m tidegate_runtime.artifact`; its progress goes to standard error as it comes.

    Returns its result. Raises LocalError with its reason when it refuses or fails.
    """
    _require_installed(NEEDED)
    command = [sys.executable, "-m", f"{MODULE}.artifact", *arguments, "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        code = done.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        raise LocalError(f"'{arguments[0]}' {how} before it had a result; see above") from None
    if error := answer.get("error"):
        raise LocalError(f"{error['message']} ({error['reason']})")
    return answer


def _require_installed(names: Sequence[str]) -> None:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise LocalError(f"the runtime is not installed ({missing[0]} is missing): {REMEDY}")
