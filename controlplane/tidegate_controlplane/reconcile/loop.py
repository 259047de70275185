"""The loop: look at everything, decide, write, act, publish; again at each tick or ring.

A pass over one deployment never trusts what an earlier pass did: processes without a row that wants
them are ended, rows without a process are told so, and a pass whose rows changed meanwhile is
dropped, since the next one is due in a moment.
"""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from typing import NoReturn

from sqlmodel import Session

from tidegate.protocol.resources import DeploymentPhase, ReplicaPhase, ResolvedPlan
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.deployments.bell import Bell, heard
from tidegate_controlplane.domain.autoscale import decide
from tidegate_controlplane.domain.reconcile import Backoff, Step, step
from tidegate_controlplane.domain.replicas import Change, Observation, Running, next_phase
from tidegate_controlplane.errors import Unavailable
from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.provision.base import (
    FormerProcess,
    Launch,
    Provisioner,
    StartFailed,
)
from tidegate_controlplane.reconcile.memory import DeploymentMemory
from tidegate_controlplane.reconcile.observe import (
    Declared,
    bounds_of,
    deployment_fact,
    read_all,
    replica_facts,
    signals_of,
)
from tidegate_controlplane.reconcile.write import FINAL, Outcome, Seen
from tidegate_controlplane.settings import ReconcileSettings
from tidegate_controlplane.store.database import Database
from tidegate_controlplane.store.deployments import (
    StaleRow,
    change_replica,
    unfinished_replicas,
)
from tidegate_controlplane.store.tables import ModelVersion, Replica, Revision

logger = logging.getLogger("tidegate.reconcile")


class Reconciler:
    def __init__(
        self,
        database: Database,
        provisioner: Provisioner,
        endpoints: Endpoints,
        bell: Bell,
        clock: Clock,
        settings: ReconcileSettings,
    ) -> None:
        self._database = database
        self._provisioner = provisioner
        self._endpoints = endpoints
        self._bell = bell
        self._clock = clock
        self._settings = settings
        self._backoff = Backoff(settings.backoff_base_s, settings.backoff_max_s)
        self._memory: defaultdict[str, DeploymentMemory] = defaultdict(DeploymentMemory)

    async def recover(self) -> None:
        """Before the first pass: end what an earlier process left, and say so on its rows."""
        former = await self._database.read(unfinished_replicas)
        await self._provisioner.sweep(
            [
                FormerProcess(replica.id, replica.pid, replica.process_start)
                for replica in former
                if replica.pid is not None and replica.process_start is not None
            ]
        )
        now = self._clock.now()

        def close(session: Session) -> None:
            for replica in unfinished_replicas(session):
                change_replica(
                    session,
                    replica,
                    now,
                    phase=ReplicaPhase.TERMINATED.value,
                    reason="ControlPlaneRestarted",
                    message="its control plane ended; a new one starts its own",
                    finished_at=now,
                )

        await self._database.write(close)

    async def run(self) -> NoReturn:
        """Until cancelled."""
        while True:
            try:
                await self.reconcile()
            except Exception:
                logger.exception("a pass failed; the next one starts over")
            await heard(self._endpoints.wanted, self._settings.tick_s)
            self._endpoints.wanted.clear()

    async def reconcile(self) -> None:
        """One pass over every deployment."""
        now = self._clock.now()
        everything = await self._database.read(lambda session: read_all(session, now))
        wanted: set[str] = set()
        for declared in everything:
            try:
                replicas = await self._reconcile_one(declared)
            except StaleRow as stale:
                logger.debug("%s", stale)
                replicas = declared.replicas
            wanted |= {r.id for r in replicas if ReplicaPhase(r.phase) not in FINAL}
        await self._end_unwanted(wanted)

    async def _reconcile_one(self, declared: Declared) -> list[Replica]:
        """One step for one deployment; returns its replicas as they are afterwards."""
        now, row = self._clock.monotonic(), declared.row
        memory = self._memory[row.id]
        seen = await self._observe(declared)
        changes = _changes(declared, seen)
        facts = replica_facts(declared, changes, memory, self._endpoints, now)
        plan = declared.plan
        peak = memory.recent_peak(now, self._settings.scale_down_window_s)
        demand = self._endpoints.demand(row.id)
        decision = decide(bounds_of(plan), signals_of(declared, demand, peak))
        memory.remember_call(now, decision.called_for)
        next_step = step(deployment_fact(row, decision.desired), facts, self._backoff)
        running = {key: value for key, value in seen.items() if isinstance(value, Running)}
        outcome = Outcome(
            declared=declared,
            step=next_step,
            decision=decision,
            changes=changes,
            seen=Seen(running, self._cold_starts(memory, changes, now)),
            now=self._clock.now(),
        )
        if not outcome.is_empty:
            await self._database.write(outcome.write)
            self._bell.ring(row.id)
        replicas = [*declared.replicas, *outcome.created]
        self._remember(memory, replicas, now)
        self._publish(declared, replicas, next_step)
        await self._act(declared, replicas, seen, now)
        if next_step.phase is DeploymentPhase.DELETED:
            await self._bury(declared)
        return replicas

    async def _observe(self, declared: Declared) -> dict[str, Observation]:
        unfinished = [r.id for r in declared.replicas if ReplicaPhase(r.phase) not in FINAL]
        return dict(await self._provisioner.observe(unfinished))

    def _cold_starts(
        self, memory: DeploymentMemory, changes: dict[str, Change], now: float
    ) -> dict[str, float]:
        found = {}
        for replica_id, change in changes.items():
            waited = memory.replica(replica_id).since(ReplicaPhase.REQUESTED, now)
            if change.phase is ReplicaPhase.READY and waited is not None:
                found[replica_id] = round(waited, 3)
        return found

    def _remember(self, memory: DeploymentMemory, replicas: list[Replica], now: float) -> None:
        memory.keep_only({replica.id for replica in replicas})
        for replica in replicas:
            if ReplicaPhase(replica.phase) not in FINAL or replica.id in memory.replicas:
                memory.replica(replica.id).entered.setdefault(ReplicaPhase(replica.phase), now)

    def _publish(self, declared: Declared, replicas: list[Replica], done: Step) -> None:
        """Offer the ready replicas of the serving revision; of any other when it has none."""
        ready = [r for r in replicas if r.phase == ReplicaPhase.READY]
        serving = [r for r in ready if r.revision_id == done.serving_revision_id] or ready
        found = [self._provisioner.endpoint(replica.id) for replica in serving]
        hopeless = None
        if done.hopeless:
            hopeless = Unavailable(
                f"deployment {declared.row.name!r} cannot answer: {done.hopeless}",
                code="deployment_failed",
                retry_after_s=done.retry_in_s or self._settings.backoff_max_s,
            )
        self._endpoints.publish(
            declared.row.id,
            [endpoint for endpoint in found if endpoint],
            hopeless=hopeless,
            cold_start_s=declared.plan.cold_start_s,
        )

    async def _act(
        self,
        declared: Declared,
        replicas: list[Replica],
        seen: dict[str, Observation],
        now: float,
    ) -> None:
        """Start what is requested and drain what is draining; both may be repeated."""
        for replica in replicas:
            phase = ReplicaPhase(replica.phase)
            if phase is ReplicaPhase.REQUESTED and not isinstance(seen.get(replica.id), Running):
                await self._start(declared, replica)
            elif phase is ReplicaPhase.DRAINING and self._may_drain(declared, replica, now):
                await self._provisioner.drain(replica.id)

    def _may_drain(self, declared: Declared, replica: Replica, now: float) -> bool:
        """Once its requests have ended, or the drain deadline has passed."""
        if not self._endpoints.in_flight_on(declared.row.id, replica.id):
            return True
        memory = self._memory[declared.row.id].replica(replica.id)
        since = memory.since(ReplicaPhase.DRAINING, now)
        return since is not None and since >= declared.plan.drain_timeout_s

    async def _start(self, declared: Declared, replica: Replica) -> None:
        revision, version = await self._database.read(
            lambda session: _revision_of(session, replica.revision_id)
        )
        launch = Launch(
            replica_id=replica.id,
            model_name=declared.row.name,
            source=revision.spec["model"]["source"],
            task=revision.spec["model"]["task"],
            revision=version.revision,
            plan=ResolvedPlan.model_validate(revision.plan),
        )
        try:
            await self._provisioner.start(launch)
        except StartFailed as error:
            failure = Change(ReplicaPhase.FAILED, "StartFailed", str(error))
            now = self._clock.now()
            await self._database.write(
                lambda session: change_replica(
                    session,
                    replica,
                    now,
                    phase=failure.phase.value,
                    reason=failure.reason,
                    message=failure.message,
                    finished_at=now,
                )
            )

    async def _end_unwanted(self, wanted: set[str]) -> None:
        """A process whose row is final, or that has none, is ended; then it is forgotten."""
        for replica_id in self._provisioner.known():
            if replica_id not in wanted:
                await self._provisioner.kill(replica_id)
                await self._provisioner.forget(replica_id)

    async def _bury(self, declared: Declared) -> None:
        self._endpoints.forget(declared.row.id)
        self._memory.pop(declared.row.id, None)
        for replica in declared.replicas:
            with contextlib.suppress(OSError):
                await self._provisioner.remove(replica.id)


def _changes(declared: Declared, seen: dict[str, Observation]) -> dict[str, Change]:
    found = {}
    for replica in declared.replicas:
        if replica.id in seen:
            change = next_phase(ReplicaPhase(replica.phase), seen[replica.id])
            if change:
                found[replica.id] = change
    return found


def _revision_of(session: Session, revision_id: str) -> tuple[Revision, ModelVersion]:
    revision = session.get_one(Revision, revision_id)
    return revision, session.get_one(ModelVersion, revision.model_version_id)
