"""Simulate autoscaling in a child process: the code that decides is the control plane's."""

from __future__ import annotations

from typing import Any

from tidegate.local.command import require_installed, run_command

MODULE = "tidegate_controlplane"


def run_simulation(*arguments: str) -> dict[str, Any]:
    """Run `python -m tidegate_controlplane.simulate` and return its result. Raises LocalError."""
    require_installed("control plane", (MODULE, "cronsim"), "controlplane")
    return run_command("simulate", f"{MODULE}.simulate", arguments)
