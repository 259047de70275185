"""From what was declared to blocks that are kept and come back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from tidegate_runtime.engine.block_manager import BLOCK_TOKENS, BlockManager
from tidegate_runtime.errors import ReplicaUnavailable
from tidegate_runtime.models.base import Decoder
from tidegate_runtime.spill.disk import DiskTier
from tidegate_runtime.spill.memory import MemoryTier
from tidegate_runtime.spill.pool import open_pool
from tidegate_runtime.spill.recalls import Recalls
from tidegate_runtime.spill.store import SpillStore
from tidegate_runtime.spill.worker import SpillObserver, SpillWorker

LAYOUT = 1
"""The version of how blocks lie in pools and records; another one is another kind."""
FOLDER = "kv"


@dataclass(frozen=True)
class SpillPlan:
    """Budgets (0 for none) and places.

    `artifact` is the digest of the weights, `kv` the precision of keys and values: only blocks that
    were made alike are ever found.
    """

    memory_bytes: int
    disk_bytes: int
    root: Path
    artifact: str
    kv: str
    context_tokens: int
    observer: SpillObserver

    def kind(self, tensors: Sequence[torch.Tensor]) -> str:
        """The name of the directory in which everything is like what these pools hold."""
        made_by = (self.artifact, self.kv, self.context_tokens, BLOCK_TOKENS, LAYOUT)
        made_with = map(version, ("tidegate", "transformers", "torch"))
        shapes = (f"{part.shape[1:]} {part.dtype} {part.device.type}" for part in tensors)
        text = "\n".join(map(str, (*made_by, *made_with, *shapes)))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def open_spill(plan: SpillPlan, decoder: Decoder, blocks: BlockManager) -> Recalls:
    """Ready for an engine, whose decoder has its pool. Raises ReplicaUnavailable when there is no
    directory to write to.
    """
    tensors = decoder.pool_tensors()
    pool = open_pool(tensors)
    disk = None
    if plan.disk_bytes:
        root = plan.root / FOLDER / str(os.getuid())
        try:
            disk = DiskTier(root, plan.kind(tensors), plan.disk_bytes)
        except OSError as error:
            raise ReplicaUnavailable(
                "SpillUnavailable",
                f"kv_spill.disk: cannot use {str(root)!r} ({error.strerror}); make it writable, or "
                "leave kv_spill.disk out",
            ) from error
    memory = MemoryTier(plan.memory_bytes) if plan.memory_bytes else None
    store = SpillStore(pool.record_bytes, memory, disk)
    return Recalls(blocks, SpillWorker(pool, blocks, store, plan.observer))
