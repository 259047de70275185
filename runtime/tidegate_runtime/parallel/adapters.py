"""An adapter on its way to all ranks: one file of its updates, of which each takes its part."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import load_file

from tidegate_runtime.artifact.memory import check_bytes_fit
from tidegate_runtime.artifact.save import save_tensors
from tidegate_runtime.engine.adapter import Adapter
from tidegate_runtime.errors import ModelRefused, ReplicaUnavailable
from tidegate_runtime.models.base import Decoder, StepBatch
from tidegate_runtime.ops.low_rank import LowRank
from tidegate_runtime.parallel.orders import (
    AdaptedBatch,
    Refused,
    TakeAdapter,
    Taken,
    Unavailable,
)

_DOWN, _UP = ".down", ".up"


@contextmanager
def handed_over(updates: Mapping[str, LowRank]) -> Iterator[Path]:
    """A file of updates that were checked, for as long as ranks read it.

    Raises ReplicaUnavailable (NoRoom) when the machine has none for it.
    """
    tensors = {
        f"{name}{kind}": tensor
        for name, update in updates.items()
        for kind, tensor in ((_DOWN, update.down), (_UP, update.up))
    }
    with TemporaryDirectory(prefix="tidegate-adapter-") as directory:
        path = Path(directory) / "updates.safetensors"
        try:
            save_tensors(tensors, path)
        except OSError as error:
            raise ReplicaUnavailable(
                "NoRoom",
                f"the adapter cannot be handed to the other ranks: {path.parent.parent} does not "
                f"take it ({error}); make room there, or set TMPDIR to where there is some",
            ) from error
        yield path


class RankAdapters:
    """The adapters of a rank other than 0, by the numbers that rank 0 gave them."""

    def __init__(self, decoder: Decoder, answer: Callable[[object], None]) -> None:
        self._decoder = decoder
        self._answer = answer
        self._taken: dict[int, Adapter] = {}

    def take(self, order: TakeAdapter) -> None:
        """Take this rank's part in a thread, which answers: steps do not wait for it."""
        threading.Thread(
            target=lambda: self._answer(self._take(order)), name="adapter", daemon=True
        ).start()

    def drop(self, number: int) -> None:
        """Forget one, if it was taken."""
        self._taken.pop(number, None)

    def batch(self, order: StepBatch | AdaptedBatch) -> StepBatch:
        """The batch of a step with this rank's parts of its adapters."""
        if isinstance(order, StepBatch):
            return order
        found = (None if number is None else self._taken[number] for number in order.numbers)
        return replace(order.batch, adapters=tuple(found))

    def _take(self, order: TakeAdapter) -> Taken | Refused | Unavailable:
        try:
            check_bytes_fit(order.adapter_id, order.updates.stat().st_size)
            adapter = self._decoder.adapt(order.adapter_id, _read(order.updates))
        except ModelRefused as error:
            return Refused(error.reason, error.message)
        except ReplicaUnavailable as error:
            return Unavailable(error.reason, error.message)
        except Exception as error:  # noqa: BLE001 - rank 0 waits for an answer, whatever it is
            why = f"a rank cannot take its part of the adapter ({type(error).__name__}: {error})"
            return Unavailable("AdapterNotTaken", why)
        self._taken[order.number] = adapter
        return Taken(adapter.weights_bytes)


def _read(path: Path) -> dict[str, LowRank]:
    tensors = load_file(path)
    names = [name.removesuffix(_DOWN) for name in tensors if name.endswith(_DOWN)]
    return {name: LowRank(tensors[f"{name}{_DOWN}"], tensors[f"{name}{_UP}"]) for name in names}
