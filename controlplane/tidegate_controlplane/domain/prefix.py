"""What a replica has probably cached of a prompt: the blocks it begins with.

A block's hash covers everything before it and the project, like the engine's own blocks, which are
salted per project. These are guesses about another process's cache: they only ever decide between
replicas that could all answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import takewhile

BLOCK_BYTES = 1024
BLOCK_TOKENS = BLOCK_BYTES // 4
MOST_BLOCKS = 64
"""Of one prompt; what comes later saves too little beside it."""
REMEMBERED_BLOCKS = 1024
"""A replica: 256 k tokens of text."""


def prefix_blocks(project_id: str, prompt: bytes) -> tuple[int, ...]:
    """One hash for each whole block that `prompt` begins with; comparable in this process only."""
    found = []
    parent = hash(project_id)
    for start in range(0, min(len(prompt) // BLOCK_BYTES, MOST_BLOCKS) * BLOCK_BYTES, BLOCK_BYTES):
        parent = hash((parent, prompt[start : start + BLOCK_BYTES]))
        found.append(parent)
    return tuple(found)


class PrefixMemory:
    """The blocks that one replica was last sent, the longest unused forgotten first."""

    def __init__(self, capacity: int = REMEMBERED_BLOCKS) -> None:
        self._capacity = capacity
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def saved_tokens(self, blocks: Sequence[int]) -> int:
        """Prompt tokens that need not be computed again."""
        return BLOCK_TOKENS * sum(1 for _ in takewhile(self._blocks.__contains__, blocks))

    def remember(self, blocks: Sequence[int]) -> None:
        # From the last to the first: the beginning of a prompt is the last to be forgotten.
        for block in reversed(blocks):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
