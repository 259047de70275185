"""kill -9 around a delivery: told at least once, and never of what was rolled back (P17)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tidegate import webhooks
from tidegate_controlplane.store.database import sqlite_driver

SCRIPT = Path(__file__).parent / "deliver_process.py"


class Receiver:
    """Kills whoever it is told to kill when a delivery has arrived, before it answers."""

    def __init__(self):
        self.received = []
        self.kill = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.received.append((dict(self.headers), body))
                if outer.kill:
                    outer.kill()
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


def begin(data_dir, step, receiver):
    environment = {**os.environ, "RECEIVER_PORT": str(receiver.port)}
    command = [sys.executable, "-W", "error", str(SCRIPT), str(data_dir), step]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)


def kill(process):
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()


def test_a_kill_between_commit_and_delivery_and_between_delivery_and_record_loses_nothing(
    tmp_path, receiver
):
    finishing = begin(tmp_path, "finish", receiver)
    assert finishing.stdout.readline() == b"committed\n"
    kill(finishing)
    assert receiver.received == []

    dying = begin(tmp_path, "deliver", receiver)
    receiver.kill = lambda: dying.send_signal(signal.SIGKILL)
    assert dying.wait(timeout=60) == -signal.SIGKILL
    dying.stdout.close()
    receiver.kill = None
    assert statuses(tmp_path) == ["sending"], "it has arrived, and nobody knows"

    living = begin(tmp_path, "deliver", receiver)
    deadline = time.monotonic() + 60
    while statuses(tmp_path) != ["delivered"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    kill(living)
    assert len(receiver.received) == 2
    secret = (tmp_path / "secret").read_text()
    told = [webhooks.verify(headers, body, secret) for headers, body in receiver.received]
    assert {event.data["id"] for event in told} == {"inv_kept"}, "the rolled back one is not told"
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1
    assert len({json.dumps(event.data) for event in told}) == 1


def statuses(data_dir):
    """Of every delivery, as another process reads them."""
    connection = sqlite_driver().connect(f"file:{data_dir}/tidegate.db?mode=ro", uri=True)
    try:
        return [status for (status,) in connection.execute("SELECT status FROM webhook_delivery")]
    finally:
        connection.close()
