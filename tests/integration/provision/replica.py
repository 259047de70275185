"""A replica without a model: keeps the contract, and misbehaves as its `source` says.

Only the standard library, so that it starts in a moment.
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
    server = ThreadingHTTPServer((config["host"], 0), Ready)
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
    print("drained", flush=True)
    return 0


class Say:
    """Writes the status file."""

    def __init__(self, config: dict[str, Any], port: int) -> None:
        self.config, self.port, self.state = config, port, "starting"

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


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        say: Any = self.server.say  # type: ignore[attr-defined]
        behaviour = say.config["source"]
        own = "another" if behaviour == "impostor" else say.config["replica_id"]
        full = {"kv_used": 0.75, "waiting": 3}
        body = json.dumps({"replica_id": own, "state": say.state} | full).encode()
        self.send_response(503 if behaviour == "sick" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    sys.exit(main())
