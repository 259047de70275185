"""What a run has reached, on disk, so that one that was killed goes on from there.

    <output>.work/
        order.json      what is made of what: another order may not go on here
        source/         the weights of the source, a file each
        kept.json       which layers stay, where some are dropped
        layers/00003/   the new weights of a layer, what goes into the next, and its errors

A directory gets its name once it is whole and on disk; hidden states are kept exactly, so what
comes of a run that was killed is what would have come of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file

from tidegate_runtime.artifact.cache import publish
from tidegate_runtime.artifact.checkpoint import Weight
from tidegate_runtime.artifact.save import save_tensors
from tidegate_runtime.compress.spool import Spool
from tidegate_runtime.errors import ModelRefused

_ORDER, _KEPT, _ERRORS, _HIDDEN = "order.json", "kept.json", "errors.json", "hidden.bin"


@dataclass(frozen=True)
class Work:
    """The directory of one run."""

    root: Path

    @property
    def source(self) -> Spool:
        """The weights of the source."""
        return Spool(self.root / "source")

    def layer(self, index: int) -> Spool:
        """The new weights of a layer that is done."""
        return Spool(self._layer(index))

    def read_source(self, fill: Callable[[Spool], None]) -> None:
        """Fill `source`, unless it is whole."""
        if not self.source.directory.is_dir():
            publish(self.source.directory, lambda directory: fill(Spool(directory)))

    def kept(self, choose: Callable[[], Sequence[int]]) -> tuple[int, ...]:
        """The layers that stay, chosen once."""
        path = self.root / _KEPT
        if not path.is_file():
            _write(path, list(choose()))
        return tuple(json.loads(path.read_text()))

    def done(self) -> int:
        """How many layers are."""
        count = 0
        while self._layer(count).is_dir():
            count += 1
        return count

    def hidden(self) -> list[torch.Tensor]:
        """What goes into the next layer: `[1, window, hidden]` a window."""
        tensors = load_file(self._layer(self.done() - 1) / _HIDDEN)
        return list(tensors["hidden"])

    def finish_layer(
        self,
        state: Mapping[str, Weight],
        errors: Mapping[str, float],
        hidden: Sequence[torch.Tensor],
    ) -> None:
        """Keep the next layer's weights by their names within it. Raises OSError."""
        index = self.done()

        def fill(directory: Path) -> None:
            for name, weight in state.items():
                Spool(directory).write(name, weight)
            _write(directory / _ERRORS, dict(errors))
            save_tensors({"hidden": torch.stack(list(hidden))}, directory / _HIDDEN)

        (self.root / "layers").mkdir(exist_ok=True)
        publish(self._layer(index), fill)
        if index:
            (self._layer(index - 1) / _HIDDEN).unlink(missing_ok=True)

    def errors(self) -> list[dict[str, float]]:
        """What each linear of each layer that is done lost."""
        return [
            json.loads((self._layer(index) / _ERRORS).read_text()) for index in range(self.done())
        ]

    def _layer(self, index: int) -> Path:
        return self.root / "layers" / f"{index:05}"


@contextmanager
def open_work(output: Path, order: Mapping[str, Any]) -> Iterator[Work]:
    """The work on `output`, begun or gone on with; removed when the body ends well.

    Raises ModelRefused (WorkDiffers, WorkTaken).
    """
    root = output.with_name(f"{output.name}.work")
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / "lock")
    try:
        with lock.acquire(timeout=0):
            _check_order(root, order)
            yield Work(root)
            shutil.rmtree(root)
    except Timeout as error:
        raise ModelRefused(
            "WorkTaken",
            f"another process works on {str(output)!r} ({root.name} is locked); wait for it, or "
            "name another --output",
        ) from error


def _check_order(root: Path, order: Mapping[str, Any]) -> None:
    path = root / _ORDER
    if not path.is_file():
        _write(path, order)
        return
    begun = json.loads(path.read_text())
    wanted = json.loads(json.dumps(order))
    if begun != wanted:
        differing = sorted(
            name for name in {*begun, *wanted} if begun.get(name) != wanted.get(name)
        )
        first = differing[0]
        raise ModelRefused(
            "WorkDiffers",
            f"{str(root)!r} was begun with another {first} ({begun.get(first)!r}, now "
            f"{wanted.get(first)!r}); remove it to begin anew, or name another --output",
        )


def _write(path: Path, value: Any) -> None:
    """Whole or not at all."""
    draft = path.with_name(f"{path.name}.draft")
    draft.write_text(json.dumps(value, indent=2))
    draft.rename(path)
