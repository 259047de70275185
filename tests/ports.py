"""Ports for servers that have to be told theirs before they start."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

FIRST, END = 11_000, 32_000
"""Below those that the kernel gives to whoever connects, so that nobody takes one meanwhile."""


def free_ports(number: int) -> list[int]:
    """So many different ones on which nobody listens at 127.0.0.1."""
    order = random.SystemRandom()
    with ExitStack() as held:
        ports: list[int] = []
        while len(ports) < number:
            port = order.randrange(FIRST, END)
            candidate = held.enter_context(socket.socket())
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
        return ports


def free_port() -> int:
    return free_ports(1)[0]
