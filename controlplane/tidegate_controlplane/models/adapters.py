"""Adapters before anybody asks for them: whether there is one where its source says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tidegate.spec import DeploymentSpec, ProvisionerName, SpecIssue

CONFIG = "adapter_config.json"


def missing_adapters(spec: DeploymentSpec) -> Iterator[SpecIssue]:
    """Directories of this machine that hold no adapter; other sources are seen when they are used.

    Touches the disk.
    """
    if spec.hardware.provisioner is not ProvisionerName.LOCAL:
        return
    for name, source in spec.runtime.adapters.items():
        if "://" not in source and not (Path(source) / CONFIG).is_file():
            yield SpecIssue(
                f"runtime.adapters.{name}",
                source,
                f"there is no {CONFIG} in it; give the directory that PEFT's save_pretrained wrote",
            )
