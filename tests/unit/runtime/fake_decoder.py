"""A decoder without weights whose tokens depend on all that a real one's depend on.

What a slot of the pool holds is mixed from the token, its position and everything that the slots
before it hold, read back through the block table of the step; and the logits come from that. So a
wrong table, position or mask, a stale block or a block shared by mistake changes the tokens.
"""

import numpy as np
import torch

from tidegate_runtime.engine.kv_budget import KvShape
from tidegate_runtime.models.base import BLOCK_TOKENS, StepBatch, StepLogits

_POSITIONS = 4096
_MIX = np.random.default_rng(7).integers(1, 2**63, _POSITIONS, dtype=np.uint64) | np.uint64(1)
_PRIME = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1
POISON = 0
"""A prompt that begins with two of this token gets no numbers."""


class FakeDecoder:
    """`habit` in 0..1 is how far the next token follows from the last one alone, which makes texts
    that repeat themselves; the rest follows from the whole context."""

    kv = KvShape(layers=1, kv_heads=1, key_dim=1, value_dim=1, item_bytes=8)

    def __init__(self, vocabulary: int = 29, habit: float = 0.0, seed: int = 1) -> None:
        self.vocabulary_size = vocabulary
        self.steps = 0
        self.rows: list[int] = []
        self._habit = habit
        chance = np.random.default_rng(seed)
        self._words = chance.integers(1, 2**63, vocabulary, dtype=np.uint64) | np.uint64(1)
        self._after = chance.random((vocabulary, vocabulary), dtype=np.float32)

    def allocate(self, blocks: int) -> None:
        self.pool = np.full((blocks, BLOCK_TOKENS), 0xDEAD, dtype=np.uint64)
        self.writes = np.zeros(blocks, dtype=np.int64)

    def pool_tensors(self) -> list[torch.Tensor]:
        return [torch.from_numpy(self.pool.view(np.int64))]

    def forward(self, batch: StepBatch) -> StepLogits:
        self._check(batch)
        self.steps += 1
        self.rows.append(len(batch.tokens))
        values = np.empty(len(batch.tokens), dtype=np.uint64)
        poisoned = np.zeros(len(batch.tokens), dtype=bool)
        for sequence, table in enumerate(batch.tables):
            for row in range(batch.starts[sequence], batch.starts[sequence + 1]):
                values[row] = self._write(table, int(batch.positions[row]), int(batch.tokens[row]))
                first = self.pool[table[0], :2]
                poisoned[row] = batch.positions[row] > 0 and bool((first == _POISONED).all())
        return StepLogits.of(
            torch.from_numpy(self._logits(values, batch.tokens, poisoned)[batch.wanted])
        )

    def _write(self, table: np.ndarray, position: int, token: int) -> np.uint64:
        before = self.pool[table].reshape(-1)[:position]
        if token == POISON and position < 2:
            value = _POISONED[position]
        else:
            context = int((before * _MIX[:position]).sum(dtype=np.uint64))
            value = np.uint64(((context ^ (token + 1) * _PRIME) * _PRIME + position) & _WORD)
        block = table[position // BLOCK_TOKENS]
        self.pool[block, position % BLOCK_TOKENS] = value
        self.writes[block] += 1
        return value

    def _logits(self, values: np.ndarray, tokens: np.ndarray, poisoned: np.ndarray) -> np.ndarray:
        mixed = (values[:, None] ^ self._words) * np.uint64(_PRIME)
        logits = (mixed >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
        logits = (1 - self._habit) * logits + self._habit * self._after[tokens]
        logits = (6.0 * logits).astype(np.float32)
        logits[poisoned] = np.nan
        return logits

    def _check(self, batch: StepBatch) -> None:
        for array in (batch.tokens, batch.positions, batch.starts, batch.tables, batch.wanted):
            assert array.dtype == np.int32
        assert batch.tables.min() >= 0
        assert batch.tables.max() < len(self.pool)
        assert batch.starts[0] == 0
        assert batch.starts[-1] == len(batch.tokens) == len(batch.positions)
        assert (np.diff(batch.starts) > 0).all()
        assert batch.tokens.min() >= 0
        assert batch.tokens.max() < self.vocabulary_size


_POISONED = np.array([0xBAD0, 0xBAD1], dtype=np.uint64)
