"""An answer in one piece that is asked for as a stream: SageMaker waits 60 s for a piece, and eight
minutes for a stream.
"""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import to_json

from tidegate_controlplane.errors import UpstreamFailed
from tidegate_controlplane.gateway.assembly import Assembly
from tidegate_controlplane.gateway.hop import EVENT_STREAM, OK, AnswerBroken, Content, Reply
from tidegate_controlplane.gateway.sse import ChunkReader

SERVER_FAULT = 500


class Assembled:
    """Implements `Reply` and `Content`: what a stream amounts to, once it is read to its end.

    Its status is known by then: a stream that says an error is an error.
    """

    content_type = "application/json"

    def __init__(self, stream: Reply, path: str) -> None:
        self._stream = stream
        self._path = path
        self.status = OK

    @property
    def content(self) -> Content:
        return self

    async def read(self, n: int = -1, /) -> bytes:
        """All of it, whatever `n`; nothing the second time."""
        del n
        assembly, reader = Assembly(self._path), ChunkReader()
        while piece := await self._stream.content.readany():
            for chunk in reader.feed(piece):
                if "error" in chunk:
                    self.status = SERVER_FAULT
                    return to_json(chunk)
                assembly.take(chunk)
        if not assembly.head:
            return b""
        if not reader.is_done:
            raise AnswerBroken("it ended before its end")
        try:
            return assembly.answer()
        except ValidationError as error:
            raise UpstreamFailed(f"the replica's answer is no answer of {self._path}") from error

    async def readany(self) -> bytes:
        return await self.read()

    def close(self) -> None:
        self._stream.close()


def assembled(reply: Reply, path: str) -> Reply:
    """The answer in one piece; one that is no stream is that already."""
    return Assembled(reply, path) if reply.content_type == EVENT_STREAM else reply
