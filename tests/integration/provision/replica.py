"""A replica without a model: keeps the contract, and misbehaves as its `source` ends.

It answers a POST to any path after the seconds that the body asks for, or with a stream of so many
pieces, and ends at once when the body says so. Only the standard library, so that it starts in a
moment.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

GAP_S = 0.05


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path)
    config = json.loads(parser.parse_args().config.read_text())
    behaviour = behaviour_of(config)
    server = Server((config["host"], 0), Answers)
    say = Say(config, server.server_address[1])
    server.say = say  # type: ignore[attr-defined]
    print(f"token of {len(os.environ['TIDEGATE_REPLICA_TOKEN'])} characters", flush=True)
    if behaviour == "crash":
        print("Traceback: boom", file=sys.stderr)
        return 1
    if behaviour == "refuse":
        say("failed", reason="Pickled", message="its weights are pickled")
        return 3
    say("starting")
    if behaviour == "slow":
        time.sleep(3600)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    say("loading")
    if behaviour == "stuck after failure":
        say("failed", reason="EngineDead", message="the engine stopped")
    else:
        say("ready")
    while not asked or behaviour == "stubborn":
        time.sleep(0.01)
    say("draining")
    while say.in_flight:
        time.sleep(0.01)
    print("drained", flush=True)
    return 0


def behaviour_of(config: dict[str, Any]) -> str:
    """The last part of its source: `hf://played/slow` is slow."""
    return str(config["source"].rpartition("/")[2])


class Say:
    """Writes the status file."""

    def __init__(self, config: dict[str, Any], port: int) -> None:
        self.config, self.port, self.state = config, port, "starting"
        self.in_flight = 0

    def __call__(self, state: str, **values: str) -> None:
        self.state = state
        path = Path(self.config["status_path"])
        draft = path.with_suffix(".draft")
        status = {
            "replica_id": self.config["replica_id"],
            "pid": os.getpid(),
            "port": self.port,
            "state": state,
        }
        draft.write_text(json.dumps(status | values))
        draft.replace(path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"changed", "\0" + self.config["status_bell"])


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # callers may come all at once


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        say = self._say
        behaviour = behaviour_of(say.config)
        own = "another" if behaviour == "impostor" else say.config["replica_id"]
        full = {"kv_used": 0.75, "waiting": 3, "in_flight": say.in_flight}
        status = 503 if behaviour == "sick" else 200
        self._answer(status, {"replica_id": own, "state": say.state} | full)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["authorization"] != f"Bearer {os.environ['TIDEGATE_REPLICA_TOKEN']}":
            self._answer(401, {"error": "another token"})
            return
        if body.get("crash"):
            print("it was told to crash", flush=True)
            os._exit(1)
        self._say.in_flight += 1
        try:
            if body.get("stream"):
                self._stream(body["max_tokens"])
                return
            time.sleep(body.get("seconds", 0.0))
            self._answer(200, {"replica_id": self._say.config["replica_id"], "path": self.path})
        finally:
            self._say.in_flight -= 1

    def _stream(self, pieces: int) -> None:
        """So many pieces of a chat answer, one every `GAP_S`, and the last words of a stream."""
        self.protocol_version = "HTTP/1.1"
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.send_header("connection", "close")
        self.end_headers()
        head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        delta = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
        for _ in range(pieces):
            self._event(json.dumps(head | {"choices": [delta]}))
            time.sleep(GAP_S)
        usage = {"prompt_tokens": 1, "completion_tokens": pieces, "total_tokens": pieces + 1}
        self._event(json.dumps(head | {"choices": [], "usage": usage}))
        self._event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, data: str) -> None:
        written = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(written), written))

    @property
    def _say(self) -> Say:
        say: Say = self.server.say  # type: ignore[attr-defined]
        return say

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        written = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(written)))
        self.end_headers()
        self.wfile.write(written)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    sys.exit(main())
