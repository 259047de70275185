"""A replica without a model: keeps the contract, and misbehaves as its `source` says.

It answers a POST to any path after the seconds that the body asks for, and ends at once when the
body says so. Only the standard library, so that it starts in a moment.
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


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path)
    config = json.loads(parser.parse_args().config.read_text())
    behaviour = config["source"]
    server = ThreadingHTTPServer((config["host"], 0), Answers)
    server.daemon_threads = True
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


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        say = self._say
        behaviour = say.config["source"]
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
            time.sleep(body.get("seconds", 0.0))
            self._answer(200, {"replica_id": self._say.config["replica_id"], "path": self.path})
        finally:
            self._say.in_flight -= 1

    @property
    def _say(self) -> Say:
        say: Say = self.server.say  # type: ignore[attr-defined]
        return say

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        written = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(written)))
        self.end_headers()
        self.wfile.write(written)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    sys.exit(main())
