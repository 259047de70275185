"""Who owns which block of the key/value cache. Pure bookkeeping, no tensors."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

BLOCK_TOKENS = 16


def blocks_for(tokens: int, block_tokens: int = BLOCK_TOKENS) -> int:
    """How many blocks hold `tokens` tokens."""
    return -(-tokens // block_tokens)


class BlockManager:
    """Blocks 0..`total_blocks`-1, each free or held by one or more sequences.

    A block counts its holders, so a prefix can be shared; it is free again when the last holder
    lets go. Invariant: a block is in the free list exactly when its count is zero.
    """

    def __init__(self, total_blocks: int, block_tokens: int = BLOCK_TOKENS) -> None:
        self.total_blocks = total_blocks
        self.block_tokens = block_tokens
        self._holders = [0] * total_blocks
        self._free = deque(range(total_blocks))

    @property
    def free_blocks(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free)

    @property
    def used_blocks(self) -> int:
        """Blocks that somebody holds."""
        return self.total_blocks - len(self._free)

    def fits(self, tokens: int) -> bool:
        """Whether `tokens` tokens could ever be held, with nothing else in the cache."""
        return blocks_for(tokens, self.block_tokens) <= self.total_blocks

    def grow(self, table: list[int], tokens: int) -> bool:
        """Extend a block table in place until it holds `tokens` tokens.

        All or nothing: False, and nothing changed, when too few blocks are free.
        """
        missing = blocks_for(tokens, self.block_tokens) - len(table)
        if missing > len(self._free):
            return False
        for _ in range(missing):
            block = self._free.popleft()
            self._holders[block] = 1
            table.append(block)
        return True

    def share(self, blocks: Iterable[int]) -> None:
        """Add one holder to blocks that are held already."""
        for block in blocks:
            if self._holders[block] == 0:
                raise ValueError(f"block {block} is free, so it holds nothing to share")
            self._holders[block] += 1

    def release(self, table: list[int]) -> None:
        """Let go of every block of a table, and empty the table."""
        for block in reversed(table):
            if self._holders[block] == 0:
                raise ValueError(f"block {block} is released more often than it was taken")
            self._holders[block] -= 1
            if self._holders[block] == 0:
                self._free.append(block)
        table.clear()
