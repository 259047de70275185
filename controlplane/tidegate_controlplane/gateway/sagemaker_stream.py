"""The model's bytes out of the frames of `InvokeEndpointWithResponseStream`.

A frame is Amazon's `application/vnd.amazon.eventstream`: lengths, headers, a payload, checksums;
botocore takes it apart. A `PayloadPart` carries the model's bytes, cut anywhere; an exception says
why there are no more.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from botocore.eventstream import EventStreamBuffer, ParserError

from tidegate_controlplane.errors import DeadlinePassed
from tidegate_controlplane.gateway.hop import AnswerBroken

STREAM_S = 480
"""SageMaker ends a stream after that (its model hosting FAQ)."""
PART = "PayloadPart"


class Chunks(Protocol):
    """The connection's bytes; aiohttp's StreamReader is one."""

    async def readany(self) -> bytes: ...


class PartReader:
    """Implements `Content`. Raises AnswerBroken, and DeadlinePassed at SageMaker's own limit."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._frames: Any = EventStreamBuffer()  # whose types are told wrongly
        self._kept = b""
        """Taken out of frames, and not yet asked for."""
        self._end: Exception | None = None
        """Why there is no more after that."""
        self._within = 0
        """Bytes of the frame that has begun; the model's answer ends between two."""

    async def readany(self) -> bytes:
        while not self._kept:
            if self._end:
                raise self._end
            chunk = await self._chunks.readany()
            if not chunk:
                if self._within:
                    raise AnswerBroken("the connection ended within a frame")
                return b""
            self._take(chunk)
        kept, self._kept = self._kept, b""
        return kept

    async def read(self, n: int = -1, /) -> bytes:
        found = b""
        while n < 0 or len(found) < n:
            piece = await self.readany()
            if not piece:
                break
            found += piece
        if 0 <= n < len(found):
            found, self._kept = found[:n], found[n:]
        return found

    def _take(self, chunk: bytes) -> None:
        """What came before the fault is still passed on."""
        self._frames.add_data(chunk)
        self._within += len(chunk)
        try:
            for message in self._frames:
                self._within -= message.prelude.total_length
                self._kept += _payload(message)
        except ParserError as error:
            self._end = AnswerBroken(f"a damaged frame: {error}")
        except (AnswerBroken, DeadlinePassed) as error:
            self._end = error


def _payload(message: Any) -> bytes:
    """The model's bytes; none of a frame of a kind that is not known."""
    if message.headers.get(":message-type") == "event":
        return message.payload if message.headers.get(":event-type") == PART else b""
    kind = message.headers.get(":exception-type") or message.headers.get(":error-code", "an error")
    if _error_code(message.payload) == "ModelInvocationTimeExceeded":
        raise DeadlinePassed(
            f"SageMaker ends an answer after {STREAM_S // 60} minutes; ask for fewer tokens"
        )
    raise AnswerBroken(f"SageMaker said {kind}")


def _error_code(payload: bytes) -> str | None:
    try:
        said = json.loads(payload)
    except ValueError:
        return None
    return said.get("ErrorCode") if isinstance(said, dict) else None
