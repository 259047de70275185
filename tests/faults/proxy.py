"""A TCP proxy before a real server, which can be made slow, refuse, fail, or hang up."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Proxy:
    """Passes bytes on, as far as its switches allow."""

    def __init__(self, target: str) -> None:
        self._target = (str(urlsplit(target).hostname), int(urlsplit(target).port or 80))
        self.delay_s = 0.0
        """Before each piece."""
        self.down = False
        """Connections are closed as soon as they are made, and those that were open too."""
        self.fail = 0
        """So many requests are answered with a 500."""
        self.cut_at_bytes: int | None = None
        """A message is cut off there."""
        self.cuts_left = 0
        self.cuts = 0
        self._lock = threading.Lock()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The URL at which it listens."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            accepting = threading.Thread(target=self._accept, args=(listener,), daemon=True)
            accepting.start()
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if self.down:
                return
            if self._takes_one("fail"):
                client.recv(65536)
                client.sendall(FAILED)
                return
            with socket.create_connection(self._target) as server:
                back = threading.Thread(target=self._pass, args=(server, client), daemon=True)
                back.start()
                self._pass(client, server)
                back.join()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        """One direction, until it ends or is cut."""
        passed, last = 0, time.monotonic()
        with suppress(OSError):
            while piece := source.recv(4096):
                if time.monotonic() - last > 0.05:
                    passed = 0  # another message
                passed += len(piece)
                if self.delay_s:
                    time.sleep(self.delay_s)
                at = self.cut_at_bytes
                if self.down or (at and passed >= at and self._takes_one("cuts_left")):
                    self.cuts += 1
                    break
                target.sendall(piece)
                last = time.monotonic()
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _takes_one(self, of: str) -> bool:
        with self._lock:
            left = getattr(self, of)
            if left > 0:
                setattr(self, of, left - 1)
            return bool(left > 0)
