"""Inputs of many requests, encoded together on one thread.

What arrives while a round runs waits for the next one, so batches grow with the load and a lone
request waits for nobody. A round takes one input of each request in turn, up to a bound of tokens,
so that a large request delays a small one by a round, not by its size.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from tidegate_runtime.engine.embedder import BATCH_TOKENS, Encoder, EncoderInput, batches
from tidegate_runtime.errors import GenerationFailed, RequestRefused

log = logging.getLogger(__name__)

MAX_WAITING_TOKENS = 1 << 20
"""Of all requests together; more are refused until some are encoded."""


@dataclass(eq=False)
class Waiting:
    """One request: its inputs that are left, and what was made of the others."""

    left: deque[tuple[int, EncoderInput]]
    made: list[torch.Tensor | None]
    done: asyncio.Future[None] = field(default_factory=asyncio.Future)

    @classmethod
    def of(cls, inputs: Sequence[EncoderInput]) -> Waiting:
        return cls(deque(enumerate(inputs)), [None] * len(inputs))

    @property
    def tokens(self) -> int:
        """Those of the inputs that are left."""
        return sum(len(each.tokens) for _, each in self.left)


@dataclass(frozen=True)
class Piece:
    """One input of a round, and where its result goes."""

    request: Waiting
    place: int
    given: EncoderInput


def next_round(waiting: deque[Waiting], most_tokens: int = BATCH_TOKENS) -> list[Piece]:
    """Take the inputs of a round: one of each request in turn, at least one and, together, at most
    `most_tokens`. Who got the last one is last in the next round.
    """
    taken: list[Piece] = []
    room = most_tokens
    queue = deque(request for request in waiting if request.left)
    while queue:
        request = queue.popleft()
        place, given = request.left[0]
        if taken and len(given.tokens) > room:
            break
        request.left.popleft()
        taken.append(Piece(request, place, given))
        room -= len(given.tokens)
        waiting.remove(request)
        waiting.append(request)
        if request.left:
            queue.append(request)
    return taken


class EncoderQueue:
    """Belongs to one event loop; the encoder runs on a thread of its own."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder")
        self._waiting: deque[Waiting] = deque()
        self._rounds: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many inputs no round has taken yet."""
        return sum(len(request.left) for request in self._waiting)

    async def encode(self, inputs: Sequence[EncoderInput]) -> list[torch.Tensor]:
        """What the encoder makes of each input, `[dim]`. Raises RequestRefused (503), and
        GenerationFailed when the encoder failed.
        """
        request = Waiting.of(inputs)
        self._check_room(request.tokens)
        self._waiting.append(request)
        if self._rounds is None:
            self._rounds = asyncio.create_task(self._run())
        try:
            await request.done
        finally:
            request.left.clear()  # nobody waits for them when the caller has left
            if request in self._waiting:
                self._waiting.remove(request)
        return [vector for vector in request.made if vector is not None]

    def _check_room(self, tokens: int) -> None:
        ahead = sum(request.tokens for request in self._waiting)
        if ahead and ahead + tokens > MAX_WAITING_TOKENS:
            raise RequestRefused(
                f"{ahead} tokens wait to be encoded here, and {MAX_WAITING_TOKENS} may; try again, "
                "or another replica.",
                code="replica_busy",
                status=503,
                retry_after_s=1,
            )

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while pieces := next_round(self._waiting):
                try:
                    made = await loop.run_in_executor(self._thread, self._encode, pieces)
                except Exception as error:
                    log.exception("a round of the encoder failed")
                    _fail({piece.request for piece in pieces}, error)
                    continue
                for piece, vector in zip(pieces, made, strict=True):
                    piece.request.made[piece.place] = vector
                _finish({piece.request for piece in pieces})
        finally:
            self._rounds = None

    def _encode(self, pieces: Sequence[Piece]) -> list[torch.Tensor]:
        """On the thread: inputs of like length together."""
        made: dict[int, torch.Tensor] = {}
        for group in batches([len(piece.given.tokens) for piece in pieces]):
            vectors = self._encoder.encode([pieces[index].given for index in group])
            made.update(zip(group, vectors, strict=True))
        return [made[index] for index in range(len(pieces))]


def _finish(requests: Iterable[Waiting]) -> None:
    for request in requests:
        if not request.done.done() and all(vector is not None for vector in request.made):
            request.done.set_result(None)


def _fail(requests: Iterable[Waiting], error: Exception) -> None:
    for request in requests:
        request.left.clear()
        if not request.done.done():
            request.done.set_exception(
                GenerationFailed(f"the encoder failed: {type(error).__name__}: {error}")
            )
