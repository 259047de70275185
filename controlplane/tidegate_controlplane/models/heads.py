"""Heads that guess next tokens, before a replica reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tidegate.spec import DeploymentSpec, ProvisionerName, SpecIssue

MANIFEST = "heads.json"


def missing_heads(spec: DeploymentSpec) -> Iterator[SpecIssue]:
    """A directory of this machine that holds no heads. Touches the disk."""
    asked = spec.runtime.speculation
    if asked is None or asked.heads is None:
        return
    if spec.hardware.provisioner is not ProvisionerName.LOCAL:
        return
    if not (Path(asked.heads) / MANIFEST).is_file():
        yield SpecIssue(
            "runtime.speculation.heads",
            asked.heads,
            f"there is no {MANIFEST} in {asked.heads!r}; give the directory that `tidegate "
            "distill` wrote",
        )
