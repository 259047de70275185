"""The replicas that can answer now, and the requests that they have or that wait for one.

The reconciler publishes; the gateway and the workers acquire. One process, one event loop, no lock:
every method that changes something does it without awaiting. Where several control planes share the
replicas, what the leader's table says is published to the others', and what each is asked for is
told to the leader.

A request that finds no free slot is *held*: it waits in a bounded line, which the autoscaler reads
as a signal, until it is admitted or its deadline passes. A slot is given back by a context manager,
so a cancellation at any await cannot leak one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from copy import copy
from functools import partial

from tidegate.protocol.replica import Priority
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.errors import DeadlinePassed, Unavailable
from tidegate_controlplane.gateway.demand import NOWHERE, Demand, Elsewhere, combined
from tidegate_controlplane.gateway.pool import Pool
from tidegate_controlplane.gateway.publication import NOTHING_PUBLISHED, Hopeless, Publication
from tidegate_controlplane.gateway.replica import Ask, Endpoint, Replica, Slot

__all__ = ["Demand", "Endpoint", "Endpoints"]

ANYTHING = Ask()
PROJECT_HOLD_QUEUE = 2000
UNKNOWN_COLD_START_S = 10.0


class Endpoints:
    """The table of ready replicas, by deployment id."""

    def __init__(
        self, clock: Clock, *, hold_queue: int, project_hold_queue: int = PROJECT_HOLD_QUEUE
    ) -> None:
        self._clock = clock
        self._hold_queue = hold_queue
        self._project_hold_queue = project_hold_queue
        self._deployments: dict[str, Pool] = {}
        self._closing = False
        self.elsewhere: Elsewhere = NOWHERE
        """What other control planes have, where there are others."""
        self.wanted = asyncio.Event()
        """Set when a request finds no replica, or a bad one, so that the reconciler need not wait
        for a tick."""

    # --- the reconciler's side ---

    def publish(
        self,
        deployment_id: str,
        endpoints: Iterable[Endpoint],
        *,
        weights: Mapping[str, float] | None = None,
        hopeless: Unavailable | None = None,
        cold_start_s: float | None = None,
    ) -> None:
        """Replace the replicas that may be chosen; requests in flight on others go on.

        `weights` shares requests between revisions, by id; all replicas are alike without. A
        revision that it leaves out, or gives nothing, serves only while no other has a replica.
        """
        pool = self._of(deployment_id)
        pool.hopeless = hopeless
        pool.cold_start_s = cold_start_s
        pool.publish(endpoints, weights)
        if hopeless and not pool.published():
            pool.refuse(lambda: copy(hopeless))

    def forget(self, deployment_id: str) -> None:
        """Drop a deleted deployment; whoever is held is told."""
        if pool := self._deployments.pop(deployment_id, None):
            pool.publish([], None)
            pool.refuse(lambda: Unavailable("the deployment was deleted", code="deleted"))

    def close(self) -> None:
        """The process stops: whoever is held is told, and nobody is held any more."""
        self._closing = True
        for pool in self._deployments.values():
            pool.refuse(partial(_stopping, pool))

    def publications(self) -> dict[str, Publication]:
        """What is published now, by deployment id."""
        found = {
            deployment_id: Publication(
                endpoints=[each.endpoint.shown for each in pool.published()],
                weights=dict(pool.weights) if pool.weights is not None else None,
                hopeless=Hopeless.of(pool.hopeless) if pool.hopeless else None,
                cold_start_s=pool.cold_start_s,
            )
            for deployment_id, pool in self._deployments.items()
        }
        return {key: value for key, value in found.items() if value != NOTHING_PUBLISHED}

    def withdraw(self) -> None:
        """Offer no replica of any deployment; requests wait for what is published next."""
        for deployment_id in list(self._deployments):
            self.publish(deployment_id, [])

    def demand(self, deployment_id: str) -> Demand:
        """What the autoscaler looks at: here, and in the other control planes."""
        return combined([self.own_demand(deployment_id), *self.elsewhere.demand(deployment_id)])

    def own_demands(self) -> dict[str, Demand]:
        """What every deployment is asked for here, by its id."""
        return {
            deployment_id: self.own_demand(deployment_id) for deployment_id in self._deployments
        }

    def own_demand(self, deployment_id: str) -> Demand:
        """What is asked for here."""
        pool = self._of(deployment_id)
        in_flight, held = pool.in_flight, pool.held
        if in_flight or held:
            idle_s: float | None = 0.0
        elif pool.last_activity is None:
            idle_s = None
        else:
            idle_s = self._clock.monotonic() - pool.last_activity
        return Demand(
            held=held,
            in_flight=in_flight,
            idle_s=idle_s,
            held_tokens=pool.held_tokens,
            in_flight_tokens=sum(each.in_flight_tokens for each in pool.replicas.values()),
            arrivals=pool.arrivals,
            arrived_tokens=pool.arrived_tokens,
            finished_tokens=pool.finished_tokens,
        )

    def in_flight_on(self, deployment_id: str, replica_id: str) -> int:
        """Requests now running on one replica, from here and from elsewhere."""
        found = self._of(deployment_id).replicas.get(replica_id)
        own = len(found.slots) if found else 0
        return own + self.elsewhere.in_flight_on(replica_id)

    def may_be_chosen_elsewhere(self) -> bool:
        """Whether another control plane may not know yet what was published last."""
        return self.elsewhere.lags()

    def own_in_flight(self) -> dict[str, int]:
        """Requests from here, by the id of the replica that runs them."""
        return {
            replica_id: len(replica.slots)
            for pool in self._deployments.values()
            for replica_id, replica in pool.replicas.items()
            if replica.slots
        }

    def touch(self, deployment_id: str) -> None:
        """Count as activity: an explicit wake."""
        self._of(deployment_id).last_activity = self._clock.monotonic()
        self.wanted.set()

    # --- the callers' side ---

    def ready(self, deployment_id: str) -> list[Endpoint]:
        """The replicas that may be chosen now."""
        return [each.endpoint for each in self._of(deployment_id).published()]

    def has_room(self, deployment_id: str, priority: Priority) -> bool:
        """Whether a request of this priority would be sent to a replica at once."""
        return self._of(deployment_id).has_room(priority)

    def may_retry(self, deployment_id: str) -> bool:
        """Whether the budget of retries allows one more."""
        return self._of(deployment_id).may_retry()

    def failed(self, deployment_id: str, slot: Slot, *, dead: bool) -> None:
        """A replica gave a request no usable answer; `dead` when nobody listens there."""
        self._of(deployment_id).failed(slot, dead=dead)

    def full(self, deployment_id: str, slot: Slot, retry_after_s: float) -> None:
        """A replica takes no more for now."""
        self._of(deployment_id).full(slot, retry_after_s)

    def stalled(self, deployment_id: str, replica: Replica, *, dead: bool) -> None:
        """A replica gives no sign of life: leave it out, and let who waits there go elsewhere."""
        self._of(deployment_id).eject(replica, dead=dead)

    @asynccontextmanager
    async def acquire(
        self, deployment_id: str, deadline: float, ask: Ask = ANYTHING
    ) -> AsyncIterator[Slot]:
        """A slot on the replica that suits `ask`, held for until `deadline` (monotonic seconds).

        Raises Unavailable when the hold queue is full or no replica will come, DeadlinePassed when
        none had room in time.
        """
        pool = self._of(deployment_id)
        tokens = pool.expected(ask)
        if not ask.returning:
            pool.arrived(tokens)
        slot = pool.take(ask, tokens) or await self._held(pool, ask, tokens, deadline)
        try:
            yield slot
        finally:
            slot.release()

    async def _held(self, pool: Pool, ask: Ask, tokens: int, deadline: float) -> Slot:
        if refusal := self._refusal(pool, ask):
            raise refusal
        now = self._clock.monotonic()
        pool.last_activity = now
        waiter = pool.hold(ask, tokens)
        self.wanted.set()
        loop = asyncio.get_running_loop()
        expiry = loop.call_later(max(0.0, deadline - now), _expire, waiter.slot)
        try:
            return await waiter.slot
        except BaseException:
            pool.leave(waiter)
            raise
        finally:
            expiry.cancel()

    def _refusal(self, pool: Pool, ask: Ask) -> Unavailable | None:
        """A new exception each time: one that is raised twice keeps the frames of both."""
        if self._closing:
            return _stopping(pool)
        if pool.hopeless and not pool.published():
            return copy(pool.hopeless)
        if ask.returning:
            return None
        if pool.held >= self._hold_queue:
            return _queue_full(pool, self._hold_queue, "for this deployment")
        of_project = sum(
            each.line.of_project(ask.project_id) for each in self._deployments.values()
        )
        if of_project >= self._project_hold_queue:
            return _queue_full(pool, self._project_hold_queue, "for this project")
        return None

    def _of(self, deployment_id: str) -> Pool:
        if deployment_id not in self._deployments:
            self._deployments[deployment_id] = Pool(self._clock, self.wanted)
        return self._deployments[deployment_id]


def _stopping(pool: Pool) -> Unavailable:
    return Unavailable(
        "the platform is stopping; try again when it is back",
        code="stopping",
        retry_after_s=pool.cold_start_s or UNKNOWN_COLD_START_S,
    )


def _queue_full(pool: Pool, most: int, where: str) -> Unavailable:
    return Unavailable(
        f"{most} requests are already held {where}; try again",
        code="hold_queue_full",
        retry_after_s=pool.cold_start_s or UNKNOWN_COLD_START_S,
    )


def _expire(slot: asyncio.Future[Slot]) -> None:
    if not slot.done():
        slot.set_exception(
            DeadlinePassed(
                "no replica had room before the request's deadline; "
                "wait longer, or look at the deployment's events"
            )
        )
