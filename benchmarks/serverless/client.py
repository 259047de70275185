"""A client that costs little, so that what it measures is the server."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

_SENT = re.compile(rb'"created":(\d+)')
_END = b"0\r\n\r\n"
"""The last chunk of an answer that does not say its length."""


@dataclass(frozen=True)
class Target:
    """Where requests go, and the key they carry."""

    url: str
    key: str

    def request(
        self, *, stream: bool, tokens: int, path: str = "/v1/chat/completions", headers: str = ""
    ) -> bytes:
        """A chat request, as bytes; further `headers` each end with a new line (CRLF)."""
        messages = [{"role": "user", "content": "What is the capital of France? " * 8}]
        document: dict[str, object] = {"model": "smol", "messages": messages, "max_tokens": tokens}
        body = json.dumps(document | ({"stream": True} if stream else {})).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {urlsplit(self.url).netloc}\r\n{headers}"
            f"authorization: Bearer {self.key}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Connection(asyncio.Protocol):
    """One connection that asks one request after the other.

    `first_s` collects the seconds from a request to its answer's first event (or its end, when it
    is no stream); `delay_s` those from an event's sending by the replica to its arrival here.
    """

    def __init__(self) -> None:
        self.first_s: list[float] = []
        self.delay_s: list[float] = []
        self._rest = b""
        self._began_s: float | None = None
        self._is_head = self._is_sized = False

    @classmethod
    async def open(cls, target: Target) -> Connection:
        """A connection to `target`."""
        place = urlsplit(target.url)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, place.hostname or "", place.port or 80)
        return connection

    async def ask(self, request: bytes) -> None:
        """Send a request; return with the last byte of its answer."""
        self._answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._began_s = time.monotonic()
        self._is_head, self._rest = True, b""
        self._transport.write(request)
        await self._answered

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._began_s is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionResetError("closed in mid-answer"))

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        if self._is_head:
            self._is_head = False
            self._is_sized = b"\r\ncontent-length:" in data.lower()
            if data[9:11] != b"20":
                self._answered.set_exception(RuntimeError(data.decode(errors="replace")))
        received = self._rest + data
        cut = received.rfind(b"\n") + 1
        self._rest = received[cut:]
        sent_ns = [
            int(found) for found in _SENT.findall(received if self._is_sized else received[:cut])
        ]
        if sent_ns and self._began_s is not None:
            self.first_s.append(now_ns / 1e9 - self._began_s)
            self._began_s = None
        if not self._is_sized:
            self.delay_s.extend((now_ns - each) / 1e9 for each in sent_ns)
        if received.endswith(b"}" if self._is_sized else _END) and not self._answered.done():
            self._answered.set_result(None)
