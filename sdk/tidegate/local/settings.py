"""The settings of a control plane, as its package describes them."""

from __future__ import annotations

from tidegate.local.command import require_installed, run_command

MODULE = "tidegate_controlplane"


def settings_text() -> str:
    """A YAML file of every setting with its default. Raises LocalError."""
    require_installed("control plane", (MODULE, "litestar"), "controlplane")
    answer = run_command("settings", f"{MODULE}.settings_text", ())
    return str(answer["text"])
