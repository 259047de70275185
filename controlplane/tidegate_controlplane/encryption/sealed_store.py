"""Any object store, with what it holds encrypted (`encryption.envelope` says how).

Sizes and digests speak of the plain bytes. A reader gets no byte that was not authenticated; one
who reads in pieces learns of a cut at the end, by ObjectDamaged instead of the last piece.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from tidegate_controlplane.encryption.envelope import (
    CHUNK_BYTES,
    MAGIC,
    Chunks,
    Header,
    damaged,
    is_sealed,
    parse,
)
from tidegate_controlplane.encryption.envelopes import not_sealed, whole_header
from tidegate_controlplane.encryption.keyring import DataKey, Keyring
from tidegate_controlplane.objects.base import Chunks as Pieces
from tidegate_controlplane.objects.base import (
    Listed,
    ObjectStore,
    Stored,
    chained,
    check_key,
    pieces,
)


class SealedStore:
    """An ObjectStore in front of another one, which sees sealed bytes only."""

    def __init__(self, inner: ObjectStore, keyring: Keyring, *, required: bool = False) -> None:
        """`required`: a plain object is not believed; else it is from before encryption."""
        self._inner = inner
        self._keyring = keyring
        self._required = required

    async def put(self, key: str, chunks: Pieces, max_bytes: int | None = None) -> Stored:
        sealing = _Sealing(await self._keyring.make(check_key(key)), key)
        await self._inner.put(key, sealing.frames(pieces(chunks, CHUNK_BYTES, max_bytes)))
        return sealing.stored

    async def get(self, key: str, start: int = 0) -> AsyncGenerator[bytes]:
        async with aclosing(self._inner.get(key)) as stored:
            head = await _head(stored, key)
            opened = self._opened if is_sealed(head) else self._plain
            async with aclosing(opened(key, start, head, stored)) as plain:
                async for piece in plain:
                    yield piece

    async def read(self, key: str) -> bytes:
        async with aclosing(self.get(key)) as found:
            return b"".join([piece async for piece in found])

    async def delete(self, key: str) -> None:
        await self._inner.delete(key)

    async def exists(self, key: str) -> bool:
        return await self._inner.exists(key)

    def list(self, prefix: str = "") -> AsyncGenerator[Listed]:
        """The sizes are those of the sealed bytes: what a deletion gives back."""
        return self._inner.list(prefix)

    async def drop_unfinished(self, older_than_s: float) -> int:
        return await self._inner.drop_unfinished(older_than_s)

    async def key_id(self, key: str) -> str | None:
        """The key that wraps the object's data key; None when the object is plain."""
        async with aclosing(self._inner.get(key)) as stored:
            head = await _head(stored, key)
        return whole_header(head, key)[0].wrapped.key_id if is_sealed(head) else None

    async def rewrap(self, key: str) -> None:
        """Put it under the newest key: a new header before the same chunks.

        A plain object, from before encryption, is sealed. Nobody writes an object twice with other
        bytes, so a writer of the same key loses nothing.
        """
        async with aclosing(self._inner.get(key)) as stored:
            head = await _head(stored, key)
            if not is_sealed(head):
                await self.put(key, chained(head, stored))
                return
            header, header_bytes = whole_header(head, key)
            renewed = await self._keyring.rewrapped(header, key)
            chunks = chained(head[header_bytes:], stored)
            await self._inner.put(key, chained(renewed.pack(), chunks))

    async def _plain(
        self, key: str, start: int, head: bytes, stored: AsyncGenerator[bytes]
    ) -> AsyncGenerator[bytes]:
        """An object that was never sealed."""
        if self._required:
            raise not_sealed(key)
        if start:
            await stored.aclose()
        async with aclosing(
            self._inner.get(key, start) if start else chained(head, stored)
        ) as found:
            async for piece in found:
                yield piece

    async def _opened(
        self, key: str, start: int, head: bytes, stored: AsyncGenerator[bytes]
    ) -> AsyncGenerator[bytes]:
        """From plain byte `start` on; the chunks before the one that holds it are not read."""
        header, header_bytes = whole_header(head, key)
        chunks = Chunks(await self._keyring.unwrap(header.wrapped, key), header, key)
        first, skip = divmod(start, header.chunk_bytes)
        source = chained(head[header_bytes:], stored)
        if first:
            await stored.aclose()
            source = self._inner.get(key, header_bytes + first * header.frame_bytes)
        number = first
        async with aclosing(_frames(source, header.frame_bytes)) as frames:
            async for frame, last in frames:
                piece = chunks.open(number, frame, last=last)[skip:]
                number, skip = number + 1, 0
                if piece:
                    yield piece
        if number == first:
            await self._check_end(key, first)

    async def _check_end(self, key: str, first: int) -> None:
        """Nothing is stored where chunk `first` would be: the object must truly end before it."""
        if first == 0:
            raise damaged(key, "it ends before its first chunk")
        async with aclosing(self.get(key)) as found:
            async for _ in found:
                pass


class _Sealing:
    """One object on its way into the store."""

    def __init__(self, data_key: DataKey, key: str) -> None:
        self._header = Header(data_key.wrapped)
        self._chunks = Chunks(data_key.plain, self._header, key)
        self._digest = hashlib.sha256()
        self._bytes = 0

    @property
    def stored(self) -> Stored:
        """What went through, as its reader will see it."""
        return Stored(self._bytes, self._digest.hexdigest())

    async def frames(self, plain: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The header, then each chunk; which one is the last is known only after the next."""
        yield self._header.pack()
        held, number = b"", 0
        async for piece in plain:
            if held:
                yield self._chunks.seal(number, held, last=False)
                number += 1
            self._digest.update(piece)
            self._bytes += len(piece)
            held = piece
        yield self._chunks.seal(number, held, last=True)


async def _head(stored: AsyncIterator[bytes], key: str) -> bytes:
    """As many bytes as hold the header of a sealed object, or tell that it is plain."""
    head = b""
    async for piece in stored:
        head += piece
        if len(head) >= len(MAGIC) and (not is_sealed(head) or parse(head, key)):
            break
    return head


async def _frames(
    stored: AsyncGenerator[bytes], frame_bytes: int
) -> AsyncGenerator[tuple[bytes, bool]]:
    """Each stored chunk, and whether nothing follows it."""
    pending = bytearray()
    async with aclosing(stored) as found:
        async for piece in found:
            pending += piece
            while len(pending) > frame_bytes:
                yield bytes(pending[:frame_bytes]), False
                del pending[:frame_bytes]
    if pending:
        yield bytes(pending), True
