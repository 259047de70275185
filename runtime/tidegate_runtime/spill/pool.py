"""What a block of the pool holds, as bytes: a record has every layer's keys, values and scales."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import numpy as np
import torch

Bytes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


class BlockPool(Protocol):
    """Reads and writes whole blocks. Safe beside a step for blocks that the step does not write."""

    record_bytes: int

    def read(self, block: int) -> bytes:
        """A copy of what a block holds."""

    def write(self, block: int, record: Bytes) -> None:
        """Make a block hold a record `[record_bytes]` again."""


class HostPool:
    """Pools in this process's memory: tensors `[blocks, …]`."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._parts: list[Bytes] = [_as_bytes(tensor).numpy() for tensor in tensors]
        self._ends = list(accumulate(part.shape[1] for part in self._parts))
        self.record_bytes = self._ends[-1]

    def read(self, block: int) -> bytes:
        """See `BlockPool`."""
        return b"".join(part[block] for part in self._parts)

    def write(self, block: int, record: Bytes) -> None:
        """See `BlockPool`."""
        for part, values in zip(self._parts, np.split(record, self._ends[:-1]), strict=True):
            part[block] = values


class DevicePool:
    """Pools in a device's memory. What is copied waits for the steps that were launched before."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._parts = [_as_bytes(tensor) for tensor in tensors]
        self._sizes = [part.shape[1] for part in self._parts]
        self.record_bytes = sum(self._sizes)

    def read(self, block: int) -> bytes:
        """See `BlockPool`."""
        return torch.cat([part[block] for part in self._parts]).cpu().numpy().tobytes()

    def write(self, block: int, record: Bytes) -> None:
        """See `BlockPool`."""
        # torch wants memory that it might write to, and a record's is often read-only.
        moved = torch.from_numpy(record.copy()).to(self._parts[0].device)
        for part, values in zip(
            self._parts, torch.split_with_sizes(moved, self._sizes), strict=True
        ):
            part[block] = values


def open_pool(tensors: Sequence[torch.Tensor]) -> BlockPool:
    """The pool of a decoder, by its tensors `[blocks, …]`."""
    on_host = tensors[0].device.type == "cpu"
    return HostPool(tensors) if on_host else DevicePool(tensors)


def _as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as `[blocks, bytes]`."""
    return tensor.flatten(1).view(torch.uint8)
