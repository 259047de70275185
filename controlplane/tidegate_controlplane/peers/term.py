"""One term of leadership: a reconciler whose writes are fenced, and what it publishes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.peers.fence import Fenced
from tidegate_controlplane.peers.publisher import Publisher
from tidegate_controlplane.provision.base import Provisioner
from tidegate_controlplane.reconcile.loop import Reconciler
from tidegate_controlplane.store.database import Database, Transactions
from tidegate_controlplane.store.leadership import Deposed

log = logging.getLogger("tidegate.peers")
MakeReconciler = Callable[[Transactions], Reconciler]


class Term:
    """From a takeover until it is ended, here or by another one's takeover."""

    def __init__(
        self,
        epoch: int,
        database: Database,
        endpoints: Endpoints,
        provisioner: Provisioner,
        make_reconciler: MakeReconciler,
    ) -> None:
        """Begins at once. The replicas that the former leader published are on their way out."""
        self.epoch = epoch
        self.publisher = Publisher(database, endpoints, epoch)
        self._provisioner = provisioner
        endpoints.withdraw()
        reconciler = make_reconciler(Fenced(database, epoch))
        self._running = asyncio.create_task(_run(reconciler), name=f"reconcile, term {epoch}")

    @property
    def has_ended(self) -> bool:
        """Whether its reconciler has, which runs until it is deposed."""
        return self._running.done()

    async def halt(self) -> None:
        """Reconcile no more; replicas go on."""
        self._running.cancel()
        await asyncio.wait([self._running])

    async def end(self) -> None:
        """Reconcile no more, and end every replica: the next leader starts its own."""
        await self.halt()
        await self._provisioner.end_all()


async def _run(reconciler: Reconciler) -> None:
    try:
        await reconciler.recover()
        await reconciler.run()
    except Deposed:
        log.warning("another control plane reconciles now")
    except Exception:
        log.exception("the reconciler could not begin; stepping down")
