"""The files by which a control plane is found: lock, pid, connection."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tidegate_controlplane.errors import StartError
from tidegate_controlplane.provision.process import start_ticks

EXIT_PORT_TAKEN = 4
EXIT_DATA_TAKEN = 5


@contextmanager
def owned(lock_path: Path) -> Iterator[None]:
    """Own the data directory until the end of the block; the kernel lets go when we die.

    Raises StartError when another process owns it, or it cannot be written.
    """
    try:
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(
            f"cannot write in {lock_path.parent}: {error.strerror}; use another --data directory"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(
                f"another control plane already runs on {lock_path.parent}; "
                "stop it with `tidegate down`, or use another --data directory",
                EXIT_DATA_TAKEN,
            ) from None
        yield
    finally:
        os.close(descriptor)


def check_whole(restoring_path: Path) -> None:
    """Raise StartError when a restore into the data directory has begun and not ended."""
    if restoring_path.exists():
        raise StartError(
            f"a restore into {restoring_path.parent} has not come to its end; "
            "run the same `tidegate restore` again"
        )


def listen(host: str, port: int) -> socket.socket:
    """A bound, listening socket; port 0 takes any free one. Raises StartError when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, since asyncio turns Nagle off only for sockets that say they are TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise StartError(
            f"port {port} on {host} is taken or cannot be used ({error.strerror}); "
            "choose another with --port, or --port 0 for any free one",
            EXIT_PORT_TAKEN,
        ) from error
    return listener


@contextmanager
def announced_pid(path: Path) -> Iterator[None]:
    """The pid file, there while the block runs."""
    pid = os.getpid()
    write_private(path, {"pid": pid, "start_time": start_ticks(pid)})
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def read_connection(path: Path) -> dict[str, Any]:
    """What an earlier run wrote; empty when there is nothing that can be read."""
    with suppress(OSError, ValueError):
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            return content
    return {}


def set_aside(path: Path) -> None:
    """Take away the connection file of an earlier run, so that it cannot pass for this one's."""
    with suppress(FileNotFoundError):
        path.replace(_aside(path))


def former_key(path: Path) -> str | None:
    """The API key of the connection file, or of the one that was set aside."""
    for place in (path, _aside(path)):
        key = read_connection(place).get("api_key")
        if isinstance(key, str):
            return key
    return None


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.former")


def write_private(path: Path, content: dict[str, Any]) -> None:
    """Replace a JSON file atomically; only its owner can read it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
