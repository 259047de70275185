"""Where a distillation keeps what it has done, so that one that was stopped goes on from there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate_runtime.artifact.output import check_output
from tidegate_runtime.errors import ModelRefused


@dataclass(frozen=True)
class Workplace:
    """A directory beside the output, for as long as there is no output."""

    root: Path

    @classmethod
    def open(cls, output: Path, order: Mapping[str, Any]) -> Workplace:
        """Begin, or go on with the same order; one of which nothing was done binds nobody.

        Raises ModelRefused: OutputExists, OutputUnwritable, OtherOrder when another was begun here.
        """
        check_output(output)
        root = output.with_name(f"{output.name}.work")
        begun = root / "order.json"
        root.mkdir(parents=True, exist_ok=True)
        if all(path == begun for path in root.iterdir()):
            begun.write_text(json.dumps(order, indent=2))
        before = json.loads(begun.read_bytes())
        for name, value in order.items():
            if before.get(name) != value:
                raise ModelRefused(
                    "OtherOrder",
                    f"{str(root)!r} was begun with {name} {before.get(name)!r}, and {value!r} is "
                    "asked for; ask for the same again, or remove it to start over",
                )
        return cls(root)

    def traces(self, shard: int) -> Path:
        """Of some of the continuations."""
        return self.root / f"traces-{shard:04}.safetensors"

    @property
    def checkpoint(self) -> Path:
        """Of the training."""
        return self.root / "checkpoint.pt"

    def close(self) -> None:
        """All is done."""
        shutil.rmtree(self.root)
