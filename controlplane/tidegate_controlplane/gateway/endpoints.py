"""The replicas that can answer now, and the work in flight on each.

The reconciler publishes; the gateway and the workers acquire. One process, one event loop, no lock:
every method that changes something does it without awaiting.

A request that finds no replica is *held*: it waits in a bounded queue, which the autoscaler reads
as a signal, until a replica is published or its deadline passes. In-flight counters are given back
by a context manager, so a cancellation at any await cannot leak one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, field

from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.routing import Candidate, WeightedTurns, choose
from tidegate_controlplane.errors import DeadlinePassed, Unavailable


@dataclass(frozen=True)
class Endpoint:
    """One ready replica: where it listens, and the token it wants."""

    replica_id: str
    url: str
    token: str = field(repr=False)
    capacity: int
    """Requests it decodes in one batch."""
    revision_id: str = ""


@dataclass(frozen=True)
class Demand:
    """What one deployment is asked for at this moment."""

    held: int
    in_flight: int
    idle_s: float | None
    """Seconds since the last request ended; 0 while there is one, None when there was none yet."""
    held_tokens: int = 0
    """Prompt and expected output of the held requests."""
    in_flight_tokens: int = 0
    """Prompt and expected output of the requests on replicas."""
    arrivals: int = 0
    """Requests since the process began; so are the next two."""
    arrived_tokens: int = 0
    finished_tokens: int = 0


@dataclass
class _Deployment:
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    in_flight: dict[str, int] = field(default_factory=dict)
    waiting: dict[asyncio.Future[None], None] = field(default_factory=dict)
    """In order of arrival."""
    last_activity: float | None = None
    hopeless: Unavailable | None = None
    """Why no replica will come, when that is known: held requests are answered with it."""
    cold_start_s: float | None = None
    shares: WeightedTurns = field(default_factory=WeightedTurns)
    """Between the revisions that answer."""


class Endpoints:
    """The table of ready replicas, by deployment id."""

    def __init__(self, clock: Clock, *, hold_queue: int) -> None:
        self._clock = clock
        self._hold_queue = hold_queue
        self._deployments: dict[str, _Deployment] = {}
        self._closing = False
        self.wanted = asyncio.Event()
        """Set when a request finds no replica, so that the reconciler need not wait for a tick."""

    # --- the reconciler's side ---

    def publish(
        self,
        deployment_id: str,
        endpoints: Iterable[Endpoint],
        *,
        hopeless: Unavailable | None = None,
        cold_start_s: float | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """Replace the replicas that may be chosen; requests in flight on others go on.

        `weights` are the revisions' shares of the requests; all replicas are one pool without.
        """
        deployment = self._of(deployment_id)
        deployment.endpoints = {endpoint.replica_id: endpoint for endpoint in endpoints}
        deployment.hopeless = hopeless
        deployment.cold_start_s = cold_start_s
        deployment.shares.set(weights or {})
        if deployment.waiting and (deployment.endpoints or hopeless):
            self._wake(deployment)

    def forget(self, deployment_id: str) -> None:
        """Drop a deleted deployment; whoever is held is told."""
        if deployment := self._deployments.pop(deployment_id, None):
            deployment.hopeless = Unavailable("the deployment was deleted", code="deleted")
            self._wake(deployment)

    def close(self) -> None:
        """The process stops: whoever is held is told, and nobody is held any more."""
        self._closing = True
        for deployment in self._deployments.values():
            self._wake(deployment)

    def demand(self, deployment_id: str) -> Demand:
        """What the autoscaler looks at."""
        deployment = self._of(deployment_id)
        in_flight = sum(deployment.in_flight.values())
        held = len(deployment.waiting)
        if in_flight or held:
            idle_s: float | None = 0.0
        elif deployment.last_activity is None:
            idle_s = None
        else:
            idle_s = self._clock.monotonic() - deployment.last_activity
        return Demand(held=held, in_flight=in_flight, idle_s=idle_s)

    def in_flight_on(self, deployment_id: str, replica_id: str) -> int:
        """Requests now running on one replica."""
        return self._of(deployment_id).in_flight.get(replica_id, 0)

    def touch(self, deployment_id: str) -> None:
        """Count as activity: an explicit wake."""
        self._of(deployment_id).last_activity = self._clock.monotonic()
        self.wanted.set()

    # --- the callers' side ---

    def ready(self, deployment_id: str) -> list[Endpoint]:
        """The replicas that may be chosen now."""
        return list(self._of(deployment_id).endpoints.values())

    def refusal(self, deployment_id: str) -> Unavailable | None:
        """Why a request that finds no replica would not be held; None when it would be."""
        return self._refusal(self._of(deployment_id))

    @asynccontextmanager
    async def acquire(
        self, deployment_id: str, deadline: float, exclude: frozenset[str] = frozenset()
    ) -> AsyncIterator[Endpoint]:
        """The replica with the least work, held for until `deadline` (monotonic seconds).

        `exclude` names replicas that already failed this request; they are chosen only when there
        is no other. Raises Unavailable when the hold queue is full or no replica will come,
        DeadlinePassed when none came in time.
        """
        deployment = self._of(deployment_id)
        endpoint = await self._wait_for_endpoint(deployment, deadline, exclude)
        counts = deployment.in_flight
        counts[endpoint.replica_id] = counts.get(endpoint.replica_id, 0) + 1
        deployment.last_activity = self._clock.monotonic()
        try:
            yield endpoint
        finally:
            counts[endpoint.replica_id] -= 1
            if not counts[endpoint.replica_id]:
                del counts[endpoint.replica_id]
            deployment.last_activity = self._clock.monotonic()

    async def _wait_for_endpoint(
        self, deployment: _Deployment, deadline: float, exclude: frozenset[str]
    ) -> Endpoint:
        while True:
            if endpoint := _least_busy(deployment, exclude):
                return endpoint
            if refusal := self._refusal(deployment):
                raise refusal
            await self._hold(deployment, deadline)

    def _refusal(self, deployment: _Deployment) -> Unavailable | None:
        """A new exception each time: one that is raised twice keeps the frames of both."""
        if self._closing:
            return Unavailable(
                "the platform is stopping; try again when it is back",
                code="stopping",
                retry_after_s=deployment.cold_start_s or 10.0,
            )
        if deployment.hopeless:
            return copy(deployment.hopeless)
        if len(deployment.waiting) >= self._hold_queue:
            return Unavailable(
                f"{self._hold_queue} requests are already held for this deployment; try again",
                code="hold_queue_full",
                retry_after_s=deployment.cold_start_s or 10.0,
            )
        return None

    async def _hold(self, deployment: _Deployment, deadline: float) -> None:
        remaining_s = deadline - self._clock.monotonic()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        deployment.waiting[future] = None
        deployment.last_activity = self._clock.monotonic()
        self.wanted.set()
        try:
            async with asyncio.timeout(max(0.0, remaining_s)):
                await future
        except TimeoutError:
            raise DeadlinePassed(
                "no replica became ready before the request's deadline; "
                "wait longer, or look at the deployment's events"
            ) from None
        finally:
            deployment.waiting.pop(future, None)

    def _wake(self, deployment: _Deployment) -> None:
        deployment.last_activity = self._clock.monotonic()
        for future in deployment.waiting:
            if not future.done():
                future.set_result(None)
        deployment.waiting.clear()

    def _of(self, deployment_id: str) -> _Deployment:
        return self._deployments.setdefault(deployment_id, _Deployment())


def _least_busy(deployment: _Deployment, exclude: frozenset[str]) -> Endpoint | None:
    """The least busy replica of the revision whose turn it is, if that has one to choose."""
    able = [e for e in deployment.endpoints.values() if e.replica_id not in exclude]
    able = able or list(deployment.endpoints.values())
    turn = deployment.shares.next({endpoint.revision_id for endpoint in able})
    candidates = [
        Candidate(e.replica_id, deployment.in_flight.get(e.replica_id, 0), e.capacity)
        for e in able
        if turn is None or e.revision_id == turn
    ]
    chosen = choose(candidates, exclude)
    return deployment.endpoints[chosen] if chosen else None
