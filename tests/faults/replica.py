"""A replica played over HTTP: what it answers follows from what it is asked."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "m"
BIG, SLOW, LONG, FLAKY = "big", "slow", "long", "flaky"
"""What a prompt may begin with: its answer is too long for its row; it takes `SLOW_S`, or `LONG_S`;
the first time that it is asked, the answer is a 500."""
SLOW_S = 0.4
LONG_S = 4.0
TAKES_S = {SLOW: SLOW_S, LONG: LONG_S}

USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


def completion(text: str, finish_reason: str | None) -> dict[str, Any]:
    """An answer, or a piece of one."""
    choice = {"index": 0, "text": text, "finish_reason": finish_reason, "logprobs": None}
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": MODEL}
    return {**head, "choices": [choice]}


def answer_to(prompt: str) -> str:
    """The only text that a request with this prompt may ever get."""
    return f"echo {prompt}" + ("." * 1000 if prompt.startswith(BIG) else "")


class Replica:
    """Answers completions after `pace_s`, and counts how often each prompt was asked."""

    def __init__(self, pace_s: float = 0.02) -> None:
        self.pace_s = pace_s
        self.asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def answer(self, prompt: str, *, streamed: bool = False) -> tuple[int, bytes]:
        """A status and a body."""
        with self._lock:
            self.asked[prompt] += 1
            asked_before = self.asked[prompt] > 1
        takes_s = [seconds for kind, seconds in TAKES_S.items() if prompt.startswith(kind)]
        time.sleep(takes_s[0] if takes_s else self.pace_s)
        if prompt.startswith(FLAKY) and not asked_before:
            return 500, b'{"error": {"message": "not this time", "code": "flaky"}}'
        text = answer_to(prompt)
        if not streamed:
            return 200, json.dumps({**completion(text, "stop"), "usage": USAGE}).encode()
        half = len(text) // 2
        pieces = [
            completion(text[:half], None),
            completion(text[half:], "stop"),
            {**completion("", None), "choices": [], "usage": USAGE},
        ]
        events = [*map(json.dumps, pieces), "[DONE]"]
        return 200, "".join(f"data: {event}\n\n" for event in events).encode()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The URL at which it answers."""
        replica = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                asked = json.loads(self.rfile.read(length))
                streamed = asked.get("stream", False)
                status, body = replica.answer(asked["prompt"], streamed=streamed)
                kind = "text/event-stream" if streamed and status == 200 else "application/json"
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

            def handle(self) -> None:
                with suppress(ConnectionError):  # who asked was killed
                    super().handle()

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
