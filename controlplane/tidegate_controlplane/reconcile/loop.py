"""The loop: look at everything, decide, write, act, publish; again at each tick or ring.

A pass over one deployment never trusts what an earlier pass did: processes without a row that wants
them are ended, rows without a process are told so, and a pass whose rows changed meanwhile is
dropped, since the next one is due in a moment. What fails for one deployment is logged and stops no
other.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import NoReturn

from tidegate.protocol.resources import DeploymentPhase, ReplicaPhase
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.deployments.bell import Bell, heard
from tidegate_controlplane.domain.group import STARTING, Backoff
from tidegate_controlplane.domain.reconcile import step
from tidegate_controlplane.domain.replicas import Change, Observation, Running, next_phase
from tidegate_controlplane.domain.room import Room
from tidegate_controlplane.gateway.endpoints import Endpoints
from tidegate_controlplane.gateway.metrics import Metrics
from tidegate_controlplane.gateway.trials import Trials
from tidegate_controlplane.provision.base import Holding, Provisioner, StartFailed
from tidegate_controlplane.reconcile.housekeeping import Housekeeping
from tidegate_controlplane.reconcile.incidents import close_former, write_start_failure
from tidegate_controlplane.reconcile.launch import former_replicas, launch_of
from tidegate_controlplane.reconcile.measure import measure
from tidegate_controlplane.reconcile.memory import DeploymentMemory, Recorded
from tidegate_controlplane.reconcile.observe import (
    Declared,
    Moment,
    deployment_fact,
    policy_of,
    read_all,
    replica_facts,
    sight_of,
    taken_bytes,
)
from tidegate_controlplane.reconcile.traffic import Traffic
from tidegate_controlplane.reconcile.watch import to_be_noted, watched_of
from tidegate_controlplane.reconcile.write import FINAL, Outcome, Seen
from tidegate_controlplane.settings import ReconcileSettings
from tidegate_controlplane.store.database import Transactions
from tidegate_controlplane.store.deployments import StaleRow
from tidegate_controlplane.store.leadership import Deposed
from tidegate_controlplane.store.tables import Replica

logger = logging.getLogger("tidegate.reconcile")
REST_S = 0.01
"""Between passes at least, however often the loop is rung for."""
MOVING = STARTING | {ReplicaPhase.DRAINING}


class Reconciler:
    def __init__(
        self,
        database: Transactions,
        provisioner: Provisioner,
        endpoints: Endpoints,
        bell: Bell,
        clock: Clock,
        settings: ReconcileSettings,
        *,
        trials: Trials,
        memory_bytes: int,
        metrics: Metrics,
    ) -> None:
        self._database = database
        self._provisioner = provisioner
        self._endpoints = endpoints
        self._bell = bell
        self._clock = clock
        self._settings = settings
        self._traffic = Traffic(provisioner, endpoints, trials, settings)
        self._housekeeping = Housekeeping(database, provisioner, bell, clock)
        self._memory_bytes = memory_bytes
        """Of the machine."""
        self._metrics = metrics
        self._backoff = Backoff(settings.backoff_base_s, settings.backoff_max_s)
        self._memory: defaultdict[str, DeploymentMemory] = defaultdict(DeploymentMemory)

    async def recover(self) -> None:
        """Before the first pass: end what an earlier process left, and say so on its rows."""
        await self._provisioner.sweep(await self._database.read(former_replicas))
        now = self._clock.now()
        await self._database.write(lambda session: close_former(session, now))

    async def run(self) -> NoReturn:
        """Until cancelled. Raises Deposed when another control plane reconciles instead."""
        while True:
            settled = True
            try:
                settled = await self.reconcile()
            except Deposed:
                raise
            except Exception:
                logger.exception("a pass failed; the next one starts over")
            pause_s = self._settings.tick_s if settled else self._settings.busy_tick_s
            await asyncio.sleep(REST_S)
            await heard(self._endpoints.wanted, pause_s)
            self._endpoints.wanted.clear()

    async def reconcile(self) -> bool:
        """One pass over every deployment; whether all are as they should be. Raises Deposed."""
        now = self._clock.now()
        everything = await self._database.read(lambda session: read_all(session, now))
        await self._housekeeping.tidy(everything)
        settled = True
        free_bytes = self._memory_bytes - taken_bytes(everything)
        for declared in everything:
            try:
                outcome, is_settled = await self._reconcile_one(declared, free_bytes)
                settled &= is_settled
                free_bytes -= outcome.created_bytes
            except StaleRow as stale:
                settled = False
                logger.debug("%s", stale)
            except Deposed:
                raise
            except Exception:
                logger.exception("a pass over deployment %s failed", declared.row.id)
        await self._housekeeping.end_unwanted()
        await self._housekeeping.tell()
        return settled

    async def _reconcile_one(self, declared: Declared, free_bytes: int) -> tuple[Outcome, bool]:
        """One step for one deployment; whether it changed nothing and nothing starts or drains."""
        now, row = self._clock.monotonic(), declared.row
        seen = await self._observe(declared)
        changes = _changes(declared, seen)
        held = await self._remove(declared, changes)
        room = Room(self._memory_bytes, free_bytes, declared.replica_bytes)
        outcome = self._decide(declared, seen, changes, held, room, now)
        unchanged = outcome.is_empty
        before = [(replica.id, replica.phase) for replica in declared.replicas]
        if not unchanged or outcome.is_news:
            await self._database.write(outcome.write)
        if outcome.is_news:
            decision = outcome.decision
            self._memory[row.id].recorded = Recorded(decision.desired, decision.term, now)
        if not unchanged:
            self._bell.ring(row.id)
        measure(self._metrics, outcome, before)
        replicas = [*declared.replicas, *outcome.created]
        self._remember(self._memory[row.id], replicas, now)
        self._traffic.publish(declared, replicas, outcome.step)
        self._traffic.watch(declared, replicas, outcome.step, self._memory[row.id].stage, now)
        await self._act(declared, replicas, now)
        if outcome.step.phase is DeploymentPhase.DELETED:
            self._endpoints.forget(row.id)
            del self._memory[row.id]
        moving = any(ReplicaPhase(replica.phase) in MOVING for replica in replicas)
        return outcome, unchanged and not moving

    async def _observe(self, declared: Declared) -> dict[str, Observation]:
        unfinished = [r.id for r in declared.replicas if ReplicaPhase(r.phase) not in FINAL]
        return dict(await self._provisioner.observe(unfinished))

    async def _remove(
        self, declared: Declared, changes: dict[str, Change]
    ) -> dict[str, str | None]:
        """What the places that it has left still hold for it; None where that is nothing."""
        ended = [key for key, change in changes.items() if change.phase in FINAL]
        return {
            place: await self._provisioner.remove(Holding(declared.row.id, place))
            for place in declared.left_places(ended)
        }

    def _decide(
        self,
        declared: Declared,
        seen: dict[str, Observation],
        changes: dict[str, Change],
        held: dict[str, str | None],
        room: Room,
        now: float,
    ) -> Outcome:
        memory = self._memory[declared.row.id]
        comparison = self._traffic.comparison(declared.rollout)
        demand = self._endpoints.demand(declared.row.id)
        sight = sight_of(declared, demand, seen, memory, Moment(now, self._clock.now()))
        decision = memory.history.decide(policy_of(declared), sight)
        facts = replica_facts(declared, changes, memory, self._endpoints, now)
        watched = watched_of(declared.rollout, comparison, memory.stage, now)
        still_held = [said for said in held.values() if said]
        fact = deployment_fact(declared, decision.desired, room, watched, still_held)
        done = step(fact, facts, self._backoff)
        return Outcome(
            declared=declared,
            step=done,
            decision=decision,
            changes=changes,
            seen=Seen(
                running={key: value for key, value in seen.items() if isinstance(value, Running)},
                cold_start_s=_cold_starts(memory, changes, now),
            ),
            now=self._clock.now(),
            comparison=comparison
            if to_be_noted(declared.rollout, done, memory.stage, now)
            else None,
            is_news=memory.is_news(decision, now),
            removed=frozenset(place for place, said in held.items() if not said),
        )

    def _remember(self, memory: DeploymentMemory, replicas: list[Replica], now: float) -> None:
        memory.keep_only({replica.id for replica in replicas})
        for replica in replicas:
            memory.replica(replica.id).enter(ReplicaPhase(replica.phase), now)

    async def _act(self, declared: Declared, replicas: list[Replica], now: float) -> None:
        """Start what is requested and drain what is draining; both may be repeated."""
        for replica in replicas:
            if replica.phase == ReplicaPhase.REQUESTED:
                await self._start(declared, replica, now)
            elif replica.phase == ReplicaPhase.DRAINING:
                await self._drain(declared, replica, now)

    async def _drain(self, declared: Declared, replica: Replica, now: float) -> None:
        """Ask it to end once its requests have ended; end it when the drain deadline has passed."""
        memory = self._memory[declared.row.id].replica(replica.id)
        draining_s = memory.since(ReplicaPhase.DRAINING, now) or 0.0
        in_flight = self._endpoints.in_flight_on(declared.row.id, replica.id)
        if not in_flight and not self._endpoints.may_be_chosen_elsewhere():
            await self._provisioner.drain(replica.id)
        elif draining_s >= declared.plan.drain_timeout_s:
            await self._provisioner.kill(replica.id)

    async def _start(self, declared: Declared, replica: Replica, now: float) -> None:
        launch = await self._database.read(lambda s: launch_of(s, declared.row, replica))
        try:
            await self._provisioner.start(launch)
        except StartFailed as error:
            why, moment = str(error), self._clock.now()
            await self._database.write(
                lambda session: write_start_failure(session, declared.row, replica, why, moment)
            )
            self._memory[declared.row.id].replica(replica.id).enter(ReplicaPhase.FAILED, now)
            self._bell.ring(declared.row.id)


def _changes(declared: Declared, seen: dict[str, Observation]) -> dict[str, Change]:
    found = {}
    for replica in declared.replicas:
        if replica.id in seen:
            change = next_phase(ReplicaPhase(replica.phase), seen[replica.id])
            if change:
                found[replica.id] = change
    return found


def _cold_starts(
    memory: DeploymentMemory, changes: dict[str, Change], now: float
) -> dict[str, float]:
    found = {}
    for replica_id, change in changes.items():
        waited = memory.replica(replica_id).since(ReplicaPhase.REQUESTED, now)
        if change.phase is ReplicaPhase.READY and waited is not None:
            found[replica_id] = round(waited, 3)
    return found
