"""Records in host memory, within a budget."""

from __future__ import annotations

from collections import OrderedDict

from tidegate_runtime.engine.block_manager import BlockHash


class MemoryTier:
    """The records used last, as many as `limit_bytes` hold."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._records: OrderedDict[BlockHash, bytes] = OrderedDict()  # the longest unused first
        self.used_bytes = 0

    def __contains__(self, key: BlockHash) -> bool:
        return key in self._records

    def save(self, key: BlockHash, record: bytes) -> None:
        """Keep a record; what was unused for longest makes room."""
        self.drop(key)
        self._records[key] = record
        self.used_bytes += len(record)
        while self.used_bytes > self._limit_bytes:
            _, gone = self._records.popitem(last=False)
            self.used_bytes -= len(gone)

    def load(self, key: BlockHash) -> bytes | None:
        """A record; None when it is not here."""
        record = self._records.get(key)
        if record is not None:
            self._records.move_to_end(key)
        return record

    def drop(self, key: BlockHash) -> None:
        """Forget a record."""
        if gone := self._records.pop(key, None):
            self.used_bytes -= len(gone)
