"""A replica without a model that answers: keeps the contract with the standard library alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def main() -> None:
    config = json.loads(Path(sys.argv[2]).read_text())
    server = ThreadingHTTPServer((config["host"], 0), Handler)
    server.daemon_threads = True
    Handler.replica_id = config["replica_id"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    status = Path(config["status_path"])
    said = {"replica_id": config["replica_id"], "pid": os.getpid(), "port": server.server_port}
    status.with_suffix(".draft").write_text(json.dumps(said | {"state": "ready"}))
    status.with_suffix(".draft").replace(status)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"changed", "\0" + config["status_bell"])
    server.serve_forever()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    replica_id = ""

    def do_GET(self) -> None:
        self._say(200, {"replica_id": self.replica_id, "state": "ready"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        wanted = f"Bearer {os.environ['TIDEGATE_REPLICA_TOKEN']}"
        if self.headers["authorization"] != wanted:
            self._say(401, {"error": {"message": "wrong token"}})
            return
        time.sleep(float(os.environ.get("REPLICA_S", "0")))
        usage = {"prompt_tokens": 2, "completion_tokens": 3}
        self._say(200, {"text": f"echo {asked['prompt']} by {self.replica_id}", "usage": usage})

    def _say(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    main()
