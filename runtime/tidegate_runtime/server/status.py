"""The status file: how a replica tells its provisioner what state it is in."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from tidegate.protocol.replica import ReplicaState, ReplicaStatus


@dataclass(frozen=True)
class StatusFile:
    """Replaced as a whole on every change, so a reader sees one state or the other.

    With the path None nothing is written: nobody provisions this replica.
    """

    path: Path | None
    replica_id: str
    bell: str | None = None
    """An abstract Unix datagram socket that is told of each change, if there is room in it."""

    def write(
        self,
        state: ReplicaState,
        *,
        port: int | None = None,
        reason: str | None = None,
        message: str | None = None,
    ) -> None:
        """Replace the file. Raises OSError when its directory cannot be written."""
        if self.path is None:
            return
        status = ReplicaStatus(
            replica_id=self.replica_id,
            pid=os.getpid(),
            port=port,
            state=state,
            reason=reason,
            message=message,
        )
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        partial.write_text(status.model_dump_json())
        partial.replace(self.path)
        self._ring()

    def _ring(self) -> None:
        """A hint that may be lost: who does not hear it looks at the file a little later."""
        if self.bell is None:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender,
        ):
            sender.sendto(self.replica_id.encode(), "\0" + self.bell)
