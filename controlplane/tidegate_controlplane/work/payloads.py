"""The bodies of requests and answers: a small one is kept in its row, another as an object.

What is kept, there or here, is sealed when there is a key. Its name is the key that it has as an
object, or would have, and follows from whose body it is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass

from tidegate_controlplane.encryption.envelopes import Envelopes
from tidegate_controlplane.objects.base import Chunks, ObjectStore, Stored
from tidegate_controlplane.store.tables import Invocation
from tidegate_controlplane.work.object_keys import request_key_of, result_key_of


@dataclass(frozen=True)
class Payload:
    """Where a body is: in the row, or under its name in the object store."""

    name: str
    inline: bytes | None

    @property
    def key(self) -> str | None:
        """The key of its object; None when it is in the row."""
        return self.name if self.inline is None else None


def request_of(row: Invocation) -> Payload:
    """The body that the row was submitted with."""
    return Payload(request_key_of(row), row.request)


def result_of(row: Invocation) -> Payload:
    """The answer of a row that succeeded."""
    return Payload(result_key_of(row), row.result)


class Payloads:
    """Keeps bodies, and finds them again."""

    def __init__(self, objects: ObjectStore, envelopes: Envelopes, inline_bytes: int) -> None:
        self._objects = objects
        self._envelopes = envelopes
        self._inline_bytes = inline_bytes

    async def keep(self, name: str, body: bytes) -> Payload:
        """Durable when this returns, if it is an object; else with its row.

        Raises ObjectStoreError.
        """
        if len(body) <= self._inline_bytes:
            return Payload(name, await self._envelopes.seal(name, body))
        await self._objects.put(name, [body])
        return Payload(name, None)

    async def keep_stream(self, name: str, chunks: Chunks, max_bytes: int) -> Stored:
        """An object, whatever its size; when this raises, nothing is kept.

        Raises ObjectStoreError, and what `chunks` raises.
        """
        try:
            return await self._objects.put(name, chunks, max_bytes)
        except BaseException:
            # A cancellation waits for a write that is on its way, and that may be the last.
            await self._objects.delete(name)
            raise

    async def stream(self, payload: Payload, start: int = 0) -> AsyncGenerator[bytes]:
        """Its bytes from `start` on; close it when it is left early. Raises ObjectStoreError."""
        if payload.inline is not None:
            yield (await self._envelopes.open(payload.name, payload.inline))[start:]
            return
        async with aclosing(self._objects.get(payload.name, start)) as pieces:
            async for piece in pieces:
                yield piece

    async def read(self, payload: Payload) -> bytes:
        """Raises ObjectNotFound, and other kinds of ObjectStoreError."""
        if payload.inline is not None:
            return await self._envelopes.open(payload.name, payload.inline)
        return await self._objects.read(payload.name)

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove objects that no row names any more."""
        for key in keys:
            await self._objects.delete(key)

    async def discard(self, payload: Payload) -> None:
        """For one whose row was never written."""
        if payload.key is not None:
            await self._objects.delete(payload.key)
