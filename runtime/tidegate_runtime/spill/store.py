"""The tiers together: what is saved goes to each, what is loaded comes from the nearest."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple

from tidegate_runtime.engine.block_manager import BlockHash
from tidegate_runtime.spill.disk import DiskTier
from tidegate_runtime.spill.memory import MemoryTier

log = logging.getLogger(__name__)

Tier = Literal["memory", "disk"]


class Found(NamedTuple):
    """How many blocks of a chain, from its first on, lie in which tier."""

    memory: int = 0
    disk: int = 0


class SpillStore:
    """Records of `record_bytes` each, by the hash of their block. Used by one thread.

    Both tiers get every record as it comes, since a process that is killed saves nothing any more;
    memory is what spares the disk.
    """

    def __init__(
        self, record_bytes: int, memory: MemoryTier | None = None, disk: DiskTier | None = None
    ) -> None:
        self.record_bytes = record_bytes
        self._memory = memory
        self._disk = disk

    def find(self, keys: Sequence[BlockHash]) -> Found:
        """How many of `keys`, from the first on, are here."""
        memory = disk = 0
        for key in keys:
            if self._memory is not None and key in self._memory:
                memory += 1
            elif self._disk is not None and key in self._disk:
                disk += 1
            else:
                break
        return Found(memory, disk)

    def has(self, key: BlockHash) -> bool:
        """Whether nothing would be gained by saving a block."""
        return all(key in tier for tier in (self._memory, self._disk) if tier is not None)

    def save(self, key: BlockHash, record: bytes) -> list[Tier]:
        """Keep a record; the tiers that took it."""
        took: list[Tier] = []
        if self._memory is not None and key not in self._memory:
            self._memory.save(key, record)
            took.append("memory")
        if self._disk is not None and key not in self._disk and self._disk.save(key, record):
            took.append("disk")
        return took

    def load(self, key: BlockHash) -> tuple[bytes, Tier] | None:
        """A record and where it was; None when it is not here, or not what it should be."""
        if self._memory is not None and (record := self._memory.load(key)) is not None:
            return record, "memory"
        if self._disk is None or (record := self._disk.load(key)) is None:
            return None
        if len(record) != self.record_bytes:
            log.warning(
                "a spilled block has %d bytes where %d make one; it is removed",
                len(record),
                self.record_bytes,
            )
            self._disk.drop(key)
            return None
        if self._memory is not None:
            self._memory.save(key, record)
        return record, "disk"

    def drop(self, key: BlockHash) -> None:
        """Remove a record that is not to be trusted."""
        for tier in (self._memory, self._disk):
            if tier is not None:
                tier.drop(key)

    def close(self) -> None:
        """Let go of what the tiers hold open."""
        if self._disk is not None:
            self._disk.close()
