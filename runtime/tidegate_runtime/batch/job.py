"""One job: every line of the input answered once, whatever interrupts it.

A chunk's results and errors are written as whole objects, and its checkpoint after them. A run that
is cut short does its open chunks anew and writes them over, so each line is there once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator, Sequence

from pydantic_core import to_json

from tidegate.protocol.replica import EXIT_CRASHED, EXIT_DRAINED, EXIT_REFUSED, ReplicaConfig
from tidegate_runtime.batch.bucket import Bucket
from tidegate_runtime.batch.lines import Line, Outcome, answered, failed, read_request, split
from tidegate_runtime.batch.model import ask, load_model
from tidegate_runtime.batch.plan import Chunk, chunks_of, left_of
from tidegate_runtime.errors import (
    EngineDead,
    GenerationFailed,
    InputRefused,
    ModelRefused,
    ReplicaUnavailable,
    RuntimeFault,
)
from tidegate_runtime.server.ranks import Ranks
from tidegate_runtime.server.replica import Replica

log = logging.getLogger(__name__)

OPEN_CHUNKS = 2
"""At once, so that the batch stays full while the last lines of one are decoded."""
LINES_PER_SEQUENCE = 2
"""Lines in flight for each sequence of a batch: one decodes, one is ready to follow it."""


def run_job(
    config: ReplicaConfig, source_url: str, target_url: str, ranks: Ranks | None = None
) -> int:
    """Answer what is left of a batch; returns the exit status. `ranks` divide the model.

    0: every line has its answer or its error. 1: run it again, it goes on where it stopped.
    3: running it again cannot help.
    """
    try:
        source, target = Bucket(source_url, "input"), Bucket(target_url, "output")
        if source.holds(target):
            raise InputRefused(
                f"output: {target_url!r} is within the input {source_url!r}, where it would be "
                "read as lines; write elsewhere"
            )
        chunks = chunks_of(source)
        left = left_of(chunks, target)
        log.info("%d of %d chunks are left", len(left), len(chunks))
        if not left:
            return EXIT_DRAINED
        return asyncio.run(Job(load_model(config, ranks), source, target).run(left))
    except (InputRefused, ModelRefused) as error:
        log.error("%s", error.message)
        return EXIT_REFUSED
    except (ReplicaUnavailable, EngineDead) as error:
        log.error("%s", error.message)
        return EXIT_CRASHED


class Job:
    """The chunks that are left, through one model."""

    def __init__(self, model: Replica, source: Bucket, target: Bucket) -> None:
        self._model = model
        self._source = source
        self._target = target
        self._room = asyncio.Semaphore(LINES_PER_SEQUENCE * model.config.max_sequences)

    async def run(self, chunks: Sequence[Chunk]) -> int:
        """Returns the exit status. Raises InputRefused, ReplicaUnavailable, EngineDead."""
        waiting = iter(chunks)
        working = asyncio.gather(*(self._work(waiting) for _ in range(OPEN_CHUNKS)))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
        try:
            await working
        except asyncio.CancelledError:
            log.warning("stopped with chunks left; run the job again to go on")
            return EXIT_CRASHED
        return EXIT_DRAINED

    async def _work(self, chunks: Iterator[Chunk]) -> None:
        for chunk in chunks:
            lines = await asyncio.to_thread(self._read, chunk)
            outcomes = await asyncio.gather(*(self._outcome(chunk, line) for line in lines))
            await asyncio.to_thread(self._keep, chunk, outcomes)

    def _read(self, chunk: Chunk) -> list[Line]:
        blocks = self._source.blocks(chunk.item, chunk.start, chunk.end)
        return list(split(blocks, chunk.item.key, number=chunk.first, start=chunk.start))

    async def _outcome(self, chunk: Chunk, line: Line) -> Outcome:
        line_id = f"{chunk.item.name}:{line.number}"
        async with self._room:
            try:
                request = read_request(line.text)
                return answered(line_id, line, await ask(self._model, request))
            except EngineDead:
                raise
            except RuntimeFault as error:
                return failed(line_id, line, error)
            except Exception:
                log.exception("line %s failed", line_id)
                return failed(line_id, line, GenerationFailed("it failed; the job's log says why"))

    def _keep(self, chunk: Chunk, outcomes: Sequence[Outcome]) -> None:
        good = [outcome.text for outcome in outcomes if outcome.is_answer]
        bad = [outcome.text for outcome in outcomes if not outcome.is_answer]
        # Also when there are none: a run before this one may have written other ones here.
        self._target.put(f"results/{chunk.name}", b"".join(good))
        self._target.put(f"errors/{chunk.name}", b"".join(bad))
        said = {"answered": len(good), "failed": len(bad)}
        self._target.put(chunk.checkpoint, to_json({"input": chunk.item.key, **said}))
        log.info("%s is done: %d answered, %d failed", chunk.name, len(good), len(bad))
