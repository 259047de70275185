"""Back up and restore a platform in a child process: the store is the control plane's."""

from __future__ import annotations

from typing import Any

from tidegate.local.command import require_installed, run_command

MODULE = "tidegate_controlplane"


def run_backup_command(name: str, command: str, *arguments: str) -> dict[str, Any]:
    """Run `python -m tidegate_controlplane.backup` and return its result. Raises LocalError."""
    require_installed("control plane", (MODULE, "sqlmodel", "alembic"), "controlplane")
    return run_command(name, f"{MODULE}.backup", [command, *arguments])
