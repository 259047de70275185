"""What a pass does for no deployment in particular: unwanted processes, notices, files."""

from __future__ import annotations

from tidegate_controlplane.clock import Clock
from tidegate_controlplane.deployments.bell import Bell
from tidegate_controlplane.provision.base import Notice, Provisioner
from tidegate_controlplane.reconcile.incidents import write_notices
from tidegate_controlplane.reconcile.observe import Declared
from tidegate_controlplane.store.database import Transactions
from tidegate_controlplane.store.deployments import unfinished_replicas


class Housekeeping:
    """Remembers what the next pass need not do again."""

    def __init__(
        self, database: Transactions, provisioner: Provisioner, bell: Bell, clock: Clock
    ) -> None:
        self._database = database
        self._provisioner = provisioner
        self._bell = bell
        self._clock = clock
        self._kept: set[str] | None = None
        """The replicas whose files were kept when they were last tidied."""
        self._notices: list[Notice] = []
        """What happened at the places and is not written yet."""

    async def end_unwanted(self) -> None:
        """A process whose row is final, or that has none, is ended; then it is forgotten."""
        known = self._provisioner.known()
        if not known:
            return
        rows = await self._database.read(unfinished_replicas)
        wanted = {replica.id for replica in rows}
        for replica_id in known:
            if replica_id not in wanted:
                await self._provisioner.kill(replica_id)
                await self._provisioner.forget(replica_id)

    async def tell(self) -> None:
        """Make events of what happened at the places."""
        self._notices += self._provisioner.notices()
        if self._notices:
            notices, now = self._notices, self._clock.now()
            await self._database.write(lambda session: write_notices(session, notices, now))
            self._notices = []
            for deployment_id in {notice.deployment_id for notice in notices}:
                self._bell.ring(deployment_id)

    async def tidy(self, everything: list[Declared]) -> None:
        """Delete the files of deployments that are gone, and of replicas that are long final."""
        kept = {replica.id for declared in everything for replica in declared.replicas}
        if kept != self._kept:
            await self._provisioner.keep_files(kept)
            self._kept = kept
