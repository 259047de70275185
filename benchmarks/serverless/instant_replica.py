"""A replica without a model, which answers at once: what is left is what lies before it.

Run as `python -m benchmarks.serverless.instant_replica INTERVAL_S`; it prints its port. A request
for a stream gets `max_tokens` events, INTERVAL_S apart, and each says in `created` when it was sent
(nanoseconds of the machine's monotonic clock, which every process here shares).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from benchmarks.serverless.realtime import run_first

_WHOLE = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"smol","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Paris"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}'
)
_EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":%d,"model":"smol","choices":'
    b'[{"index":0,"delta":{"content":" word"},"finish_reason":null}],"usage":null}\n\n'
)
_LAST = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":%d,"model":"smol","choices":[],'
    b'"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}\n\ndata: [DONE]\n\n'
)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank or len(body) < _length(head):
            return
        self._received = b""
        request = json.loads(body) if body else {}
        if request.get("stream"):
            self._transport.write(_STREAM_HEAD)
            self._send(request["max_tokens"])
        else:
            head = (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            )
            self._transport.write(head % len(_WHOLE) + _WHOLE)

    def _send(self, left: int) -> None:
        if self._transport.is_closing():
            return
        self._write(_EVENT)
        if left > 1:
            asyncio.get_running_loop().call_later(self._interval_s, self._send, left - 1)
        else:
            self._write(_LAST)
            self._transport.write(b"0\r\n\r\n")

    def _write(self, form: bytes) -> None:
        event = form % time.monotonic_ns()
        self._transport.write(b"%x\r\n%s\r\n" % (len(event), event))


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


async def main(interval_s: float) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(interval_s), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    run_first()
    asyncio.run(main(float(sys.argv[1])))
