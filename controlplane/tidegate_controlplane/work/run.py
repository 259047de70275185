"""A leased request on its way through a replica."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tidegate_controlplane.gateway.catalog import Served
from tidegate_controlplane.store.leases import Lease
from tidegate_controlplane.store.tables import Invocation
from tidegate_controlplane.work.outcome import Interrupted, Reply
from tidegate_controlplane.work.partial import Partial


@dataclass(eq=False)
class Run:
    row: Invocation
    served: Served
    partial: Partial | None = None
    """How far it has come; None for a line of a batch, whose progress is its batch's."""
    asked: bool = False
    """A replica has it, and counts it as in flight."""
    waits_for_storage: bool = False
    """What became of it is known, and could not be written yet."""
    interrupted: Interrupted | None = None
    replica_s: float = 0.0
    """Its share of the replicas' time."""
    call: asyncio.Task[Reply] | None = field(default=None, repr=False)

    @property
    def lease(self) -> Lease:
        return Lease.of(self.row)

    def interrupt(self, why: Interrupted) -> None:
        """Hang up on the replica, which stops its work for this request."""
        self.interrupted = why
        if self.call is not None:
            self.call.cancel()
