"""Who owns which block of the key/value cache, and which blocks hold a known prefix.

A full block is known by a 128-bit hash of its tokens and of all tokens before them (a chain, as in
vLLM's automatic prefix caching), so an equal hash means an equal context. The chain starts from the
project, so projects never share a block, and from its adapter, if there is one. Pure bookkeeping,
no tensors.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import NewType

import numpy as np

BLOCK_TOKENS = 16

BlockHash = NewType("BlockHash", bytes)


def blocks_for(tokens: int, block_tokens: int = BLOCK_TOKENS) -> int:
    """How many blocks hold `tokens` tokens."""
    return -(-tokens // block_tokens)


def block_hash(parent: bytes, tokens: bytes) -> BlockHash:
    """The hash of a full block, from its int32 token ids as bytes and the hash before it."""
    return BlockHash(hashlib.blake2b(parent + tokens, digest_size=16).digest())


def project_salt(project: str) -> BlockHash:
    """What stands before the first block of every sequence of a project."""
    return block_hash(b"", project.encode())


class BlockTable:
    """The blocks of one sequence, in order: `ids[:length]`, int32. Its room never grows."""

    __slots__ = ("ids", "length")

    def __init__(self, room: int) -> None:
        self.ids = np.empty(room, dtype=np.int32)
        self.length = 0

    def extend(self, blocks: Sequence[int]) -> None:
        """Add blocks at the end."""
        end = self.length + len(blocks)
        self.ids[self.length : end] = blocks
        self.length = end

    def take(self) -> list[int]:
        """Empty the table; returns the blocks that were in it."""
        blocks: list[int] = self.ids[: self.length].tolist()
        self.length = 0
        return blocks


class BlockManager:
    """Blocks 0..`total_blocks`-1, each held by some sequences or by none.

    Invariants: a block is in exactly one of three states: held (its count is above zero), plain
    free, or cached (no holder, but its hash is known); a hash names at most one block. Only full
    blocks are ever shared and a full block is never written again, so nothing is ever copied.
    """

    def __init__(self, total_blocks: int, block_tokens: int = BLOCK_TOKENS) -> None:
        self.total_blocks = total_blocks
        self.block_tokens = block_tokens
        self._holders = [0] * total_blocks
        self._free = list(range(total_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()  # the longest unused first
        self._block_of: dict[BlockHash, int] = {}
        self._hash_of: dict[int, BlockHash] = {}
        self._versions = [0] * total_blocks

    @property
    def free_blocks(self) -> int:
        """Blocks that nobody holds, cached ones included."""
        return len(self._free) + len(self._cached)

    @property
    def used_blocks(self) -> int:
        """Blocks that somebody holds."""
        return self.total_blocks - self.free_blocks

    def fits(self, tokens: int) -> bool:
        """Whether `tokens` tokens could ever be held, with nothing else in the cache."""
        return blocks_for(tokens, self.block_tokens) <= self.total_blocks

    def grow(self, table: BlockTable, tokens: int) -> bool:
        """Extend a table until it holds `tokens` tokens.

        All or nothing: False, and nothing changed, when too few blocks are free. Plain free blocks
        go first, then the cached ones that were unused for longest.
        """
        missing = blocks_for(tokens, self.block_tokens) - table.length
        if missing <= 0:
            return True
        if missing > self.free_blocks:
            return False
        blocks = [self._free.pop() if self._free else self._reclaim() for _ in range(missing)]
        for block in blocks:
            self._holders[block] = 1
        table.extend(blocks)
        return True

    def release(self, table: BlockTable) -> None:
        """Let go of every block of a table, and empty the table.

        The last block goes first, so that the start of a prefix, which more sequences may share,
        stays cached for longest.
        """
        for block in reversed(table.take()):
            if self._holders[block] == 0:
                raise ValueError(f"block {block} is released more often than it was taken")
            self._holders[block] -= 1
            if self._holders[block] == 0:
                if block in self._hash_of:
                    self._cached[block] = None
                else:
                    self._free.append(block)

    def known(self, hashes: Sequence[BlockHash]) -> int:
        """How many of `hashes`, from the first on, name a block."""
        for count, key in enumerate(hashes):
            if key not in self._block_of:
                return count
        return len(hashes)

    def share(self, table: BlockTable, hashes: Sequence[BlockHash]) -> None:
        """Put the blocks of known hashes into an empty table, as one more holder of each."""
        blocks = [self._block_of[key] for key in hashes]
        for block in blocks:
            self._holders[block] += 1
            self._cached.pop(block, None)
        table.extend(blocks)

    def register(self, block: int, key: BlockHash) -> None:
        """Make a held, full and computed block known; the first block of equal ones stays known."""
        if self._holders[block] == 0:
            raise ValueError(f"block {block} is free, so it holds nothing to share")
        if key not in self._block_of and block not in self._hash_of:
            self._block_of[key] = block
            self._hash_of[block] = key

    def block_of(self, key: BlockHash) -> int | None:
        """The block that a hash names, if any."""
        return self._block_of.get(key)

    def version(self, block: int) -> int:
        """A number that changes before a known block may be written again; any thread may ask."""
        return self._versions[block]

    def forget(self, table: BlockTable) -> None:
        """Make the blocks of a table unknown: what is in them is not to be trusted."""
        for block in table.ids[: table.length].tolist():
            self._unname(block)

    def _reclaim(self) -> int:
        block, _ = self._cached.popitem(last=False)
        self._unname(block)
        return block

    def _unname(self, block: int) -> None:
        if key := self._hash_of.pop(block, None):
            del self._block_of[key]
            self._versions[block] += 1
