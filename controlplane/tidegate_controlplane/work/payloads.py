"""The bodies of requests and answers: a small one is kept in its row, another as an object."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from tidegate_controlplane.objects.base import Chunks, ObjectStore, Stored


@dataclass(frozen=True)
class Payload:
    """Where a body is: in the row, or under a key of the object store."""

    inline: bytes | None
    key: str | None


class Payloads:
    """Keeps bodies, and finds them again."""

    def __init__(self, objects: ObjectStore, inline_bytes: int) -> None:
        self._objects = objects
        self._inline_bytes = inline_bytes

    async def keep(self, key: str, body: bytes) -> Payload:
        """Durable when this returns, if it is an object; else with its row.

        Raises ObjectStoreError.
        """
        if len(body) <= self._inline_bytes:
            return Payload(body, None)
        await self._objects.put(key, [body])
        return Payload(None, key)

    async def keep_stream(self, key: str, chunks: Chunks, max_bytes: int) -> Stored:
        """An object, whatever its size; when this raises, nothing is kept.

        Raises ObjectStoreError, and what `chunks` raises.
        """
        try:
            return await self._objects.put(key, chunks, max_bytes)
        except BaseException:
            # A cancellation waits for a write that is on its way, and that may be the last.
            await self._objects.delete(key)
            raise

    async def stream(self, payload: Payload, start: int = 0) -> AsyncGenerator[bytes]:
        """Its bytes from `start` on; close it when it is left early. Raises ObjectStoreError."""
        if payload.inline is not None:
            yield payload.inline[start:]
            return
        async with aclosing(self._objects.get(payload.key or "", start)) as pieces:
            async for piece in pieces:
                yield piece

    async def read(self, payload: Payload) -> bytes:
        """Raises ObjectNotFound, and other kinds of ObjectStoreError."""
        if payload.inline is not None:
            return payload.inline
        return await self._objects.read(payload.key or "")

    async def discard(self, payload: Payload) -> None:
        """For one whose row was never written."""
        if payload.key is not None:
            await self._objects.delete(payload.key)
