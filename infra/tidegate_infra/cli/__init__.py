"""The command `tidegate-infra`; `tidegate infra` runs it."""

from tidegate_infra.cli.commands import app, main

__all__ = ["app", "main"]
