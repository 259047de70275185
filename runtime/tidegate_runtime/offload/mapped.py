"""Layers in a file that is mapped into memory: the kernel is told what comes and what has gone.

A page that is dropped leaves this process and stays in the kernel's cache of the file as long as
nothing else wants the memory; so a bound that is stricter than the machine costs little, and one
that is as strict as the machine costs a read of the disk.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

Span = tuple[int, int]
"""First address, and the one behind the last."""


class MappedLayers:
    """See `offload.streamer.Shelf`. `layers` are the tensors of each, mapped from `file`.

    Raises RuntimeError when one is not: what is dropped would be lost.
    """

    def __init__(self, file: Path, layers: Mapping[int, Sequence[torch.Tensor]]) -> None:
        mapped = list(_mappings(file))
        self._madvise = ctypes.CDLL(None, use_errno=True).madvise
        self._madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self._kept = layers
        self._spans = {number: spans(tensors) for number, tensors in layers.items()}
        for number, found in self._spans.items():
            if not all(any(a <= x and y <= b for a, b in mapped) for x, y in found):
                raise RuntimeError(f"layer {number} is not mapped from {file}")
            self.drop(number)

    def bring(self, layer: int) -> None:
        """Begin to read it from the disk."""
        page = mmap.PAGESIZE
        for start, end in self._spans[layer]:
            self._advise(start // page * page, -(-end // page) * page, mmap.MADV_WILLNEED)

    def wait(self, layer: int) -> None:
        """Nothing: a page that is not there yet is waited for as it is touched."""

    def drop(self, layer: int) -> None:
        """Take its pages out of this process; those that it shares with its neighbours stay."""
        page = mmap.PAGESIZE
        for start, end in self._spans[layer]:
            self._advise(-(-start // page) * page, end // page * page, mmap.MADV_DONTNEED)

    def _advise(self, start: int, end: int, advice: int) -> None:
        if end > start and self._madvise(start, end - start, advice) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"madvise: {os.strerror(error)}")


def spans(tensors: Iterable[torch.Tensor]) -> list[Span]:
    """Where tensors lie, those that follow each other as one."""
    found: list[Span] = []
    for start, end in sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in tensors):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


def _mappings(file: Path) -> Iterable[Span]:
    """Where this process has a file mapped (proc(5), /proc/pid/maps)."""
    path = str(file.resolve())
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, name = line.split(maxsplit=5)
        if name == path:
            start, _, end = span.partition("-")
            yield int(start, 16), int(end, 16)
