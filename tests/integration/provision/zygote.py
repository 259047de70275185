"""A zygote without a model: the real loop and real forks, around the replica of `replica.py`."""

from __future__ import annotations

import argparse
import errno
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import replica

from tidegate_runtime.server.parent import die_with, tie_to
from tidegate_runtime.zygote import orphan
from tidegate_runtime.zygote.zygote import Zygote

parser = argparse.ArgumentParser()
parser.add_argument("--socket", type=int)
parser.add_argument("--parent-pid", type=int)
parser.add_argument("--warm-bytes", type=int)
parser.add_argument("--broken", action="store_true")
parser.add_argument("--full", action="store_true")
parser.add_argument("--dies-answering", type=Path, help="the first time; leaves its answer there")
asked = parser.parse_args()
if asked.broken:
    sys.exit("ImportError: no module named tomorrow")


def serve(arguments: list[str]) -> int:
    die_with(asked.parent_pid)
    print(f"forked from {os.environ['FORKED_BY']}", flush=True)
    sys.argv[1:] = arguments
    return replica.main()


def warm(config: Path) -> None:
    """A model called `bomb` ends the zygote; one called `thread` leaves one running."""
    source = json.loads(config.read_text())["source"]
    print(f"warm {source}", flush=True)
    if source == "bomb":
        os._exit(9)
    if source == "thread":
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


class Connection(socket.socket):
    """The zygote's own; it can end between a fork and its answer."""

    def send(self, packet: bytes) -> int:  # type: ignore[override]
        last_words: Path | None = asked.dies_answering
        if last_words and b'"forked"' in packet and not last_words.exists():
            last_words.write_bytes(packet)
            os._exit(9)
        return super().send(packet)


def no_process() -> int:
    """As `os.fork` where there are as many processes as there may be."""
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


if asked.full:
    orphan.os.fork = no_process  # type: ignore[attr-defined]
tie_to(asked.parent_pid)
os.environ["FORKED_BY"] = str(os.getpid())
sys.exit(Zygote(Connection(fileno=asked.socket), asked.parent_pid, serve, warm).serve())
