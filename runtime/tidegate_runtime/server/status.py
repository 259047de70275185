"""The status file: how a replica tells its provisioner what state it is in."""

from __future__ import annotations

import os
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
