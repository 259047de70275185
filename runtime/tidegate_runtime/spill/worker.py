"""The thread that copies blocks out of the pool and back, beside the engine's."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from tidegate_runtime.engine.block_manager import BlockHash, BlockManager, BlockTable
from tidegate_runtime.spill.pool import BlockPool
from tidegate_runtime.spill.store import SpillStore, Tier
from tidegate_runtime.spill.worth import Worth

log = logging.getLogger(__name__)

MAX_QUEUED = 65_536
_LAST_SAVES_S = 5.0


class SpillObserver(Protocol):
    """Is told of what happens, in the worker's thread."""

    def saved(self, tier: Tier, record_bytes: int) -> None:
        """A tier took a block."""

    def loaded(self, tier: Tier, record_bytes: int) -> None:
        """A block came back from a tier."""

    def asked(self, blocks: int, hits: int) -> None:
        """Of so many blocks that a newcomer lacked, so many came back."""


class Save(NamedTuple):
    """A cached block, as long as its version is this one."""

    block: int
    key: BlockHash
    version: int


@dataclass(frozen=True, eq=False)
class Recall:
    """Blocks of `table` from `known` on are to hold what `keys` name; the table is held for it."""

    table: BlockTable
    known: int
    keys: Sequence[BlockHash]


class Recalled(NamedTuple):
    """The first `blocks` blocks of a recall hold what they should; the others hold nothing."""

    recall: Recall
    blocks: int


class SpillWorker:
    """Does what it is asked in order, recalls before everything else.

    A block may be given to another sequence while it is copied out. The engine's thread changes its
    version before that, so a copy counts only when the version is the same before and after it.
    """

    def __init__(
        self,
        pool: BlockPool,
        blocks: BlockManager,
        store: SpillStore,
        observer: SpillObserver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.worth = Worth(pool.record_bytes)
        self._pool = pool
        self._blocks = blocks
        self._store = store
        self._observer = observer
        self._clock = clock
        self._arrived = threading.Condition()
        self._recalls: deque[Recall] = deque()
        self._saves: deque[Save | BlockHash] = deque(maxlen=MAX_QUEUED)  # beyond: the oldest goes
        self._busy = False
        self._stopping = False
        self._on_recalled: Callable[[Recalled], None] = lambda _: None
        self._thread = threading.Thread(target=self._run, name="spill", daemon=True)

    def start(self, on_recalled: Callable[[Recalled], None]) -> None:
        """Start the thread, which calls `on_recalled` once for every recall."""
        self._on_recalled = on_recalled
        self._thread.start()

    def stop(self) -> None:
        """Save what is queued, as far as there is time, and end the thread."""
        with self._arrived:
            self._stopping = True
            self._arrived.notify_all()
        self._thread.join(_LAST_SAVES_S)

    def recall(self, recall: Recall) -> None:
        """Bring blocks back."""
        with self._arrived:
            self._recalls.append(recall)
            self._arrived.notify_all()

    def save(self, saves: Sequence[Save]) -> None:
        """Keep copies of blocks."""
        with self._arrived:
            self._saves.extend(saves)
            self._arrived.notify_all()

    def drop(self, keys: Sequence[BlockHash]) -> None:
        """Remove the copies of blocks that are not to be trusted."""
        with self._arrived:
            self._saves.extend(keys)
            self._arrived.notify_all()

    def settle(self, timeout_s: float) -> bool:
        """Wait until nothing is queued; False when it took longer."""
        with self._arrived:
            return self._arrived.wait_for(
                lambda: not (self._recalls or self._saves or self._busy), timeout_s
            )

    def _run(self) -> None:
        while (job := self._next()) is not None:
            if isinstance(job, Recall):
                self._recall(job)
            else:
                self._keep(job)
        self._store.close()

    def _next(self) -> Recall | Save | BlockHash | None:
        """Wait for work; None when there is none and no more will come."""
        with self._arrived:
            self._busy = False
            while not (self._recalls or self._saves):
                if self._stopping:
                    return None
                self._arrived.notify_all()
                self._arrived.wait()
            self._busy = True
            return self._recalls.popleft() if self._recalls else self._saves.popleft()

    def _recall(self, recall: Recall) -> None:
        blocks = 0
        try:
            if self.worth.is_worth(self._store.find(recall.keys)):
                blocks = self._load(recall)
        except Exception:  # the newcomer is waiting, and can compute what it lacks
            log.exception("bringing blocks back failed")
        self._observer.asked(len(recall.keys), blocks)
        self._on_recalled(Recalled(recall, blocks))

    def _load(self, recall: Recall) -> int:
        """Fill blocks up to the first that cannot be had; how many were filled."""
        blocks: list[int] = recall.table.ids[recall.known : recall.table.length].tolist()
        seconds: dict[Tier, float] = {}
        counts: dict[Tier, int] = {}
        for count, (key, block) in enumerate(zip(recall.keys, blocks, strict=True)):
            started = self._clock()
            if (found := self._store.load(key)) is None:
                blocks = blocks[:count]
                break
            record, tier = found
            self._pool.write(block, np.frombuffer(record, dtype=np.uint8))
            seconds[tier] = seconds.get(tier, 0.0) + self._clock() - started
            counts[tier] = counts.get(tier, 0) + 1
            self._observer.loaded(tier, len(record))
        for tier, number in counts.items():
            self.worth.loaded(tier, number, seconds[tier])
        return len(blocks)

    def _keep(self, job: Save | BlockHash) -> None:
        try:
            if not isinstance(job, Save):
                self._store.drop(job)
                return
            if self._store.has(job.key) or self._blocks.version(job.block) != job.version:
                return
            record = self._pool.read(job.block)
            if self._blocks.version(job.block) == job.version:
                for tier in self._store.save(job.key, record):
                    self._observer.saved(tier, len(record))
        except Exception:  # what is not kept is computed again
            log.exception("keeping a block failed")
