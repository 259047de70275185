"""The replicas of one deployment, and the requests that wait for a slot on one.

A request is *held* until a replica has room for it: while there is none at all, and while all are
full. Held requests are admitted one by one as slots come free, so a burst of hundreds reaches a new
replica at the pace of its capacity. Nothing here waits; whoever holds a request awaits its future.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tidegate.protocol.replica import Priority
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.ejection import may_eject, may_retry
from tidegate_controlplane.domain.hold import HoldLine
from tidegate_controlplane.domain.routing import OutputMean, choose, slots
from tidegate_controlplane.domain.turns import draw
from tidegate_controlplane.errors import Unavailable
from tidegate_controlplane.gateway.replica import Ask, Endpoint, Replica, Slot


@dataclass(eq=False)
class Waiter:
    """A request that is held, and the future that brings its slot."""

    ask: Ask
    tokens: int
    slot: asyncio.Future[Slot]
    is_held: bool = True

    @property
    def priority(self) -> Priority:
        return self.ask.priority

    @property
    def project_id(self) -> str:
        return self.ask.project_id


@dataclass(eq=False)
class Pool:
    """One deployment's replicas, its held requests and its counters."""

    clock: Clock
    wanted: asyncio.Event
    replicas: dict[str, Replica] = field(default_factory=dict)
    """The published ones, and others as long as they have requests in flight."""
    line: HoldLine[Waiter] = field(default_factory=HoldLine)
    retries: dict[Waiter, None] = field(default_factory=dict)
    """Held for another replica than the one that failed them; few, so they pass the line."""
    held_tokens: int = 0
    arrivals: int = 0
    arrived_tokens: int = 0
    finished_tokens: int = 0
    output_mean: OutputMean = field(default_factory=OutputMean)
    last_activity: float | None = None
    hopeless: Unavailable | None = None
    """Why no replica will come, when that is known: held requests are answered with it."""
    cold_start_s: float | None = None
    weights: Mapping[str, float] | None = None
    """Of the revisions, by id; all replicas are alike without."""
    _credits: dict[str, float] = field(default_factory=dict)

    @property
    def held(self) -> int:
        return len(self.line) + len(self.retries)

    @property
    def in_flight(self) -> int:
        return sum(len(each.slots) for each in self.replicas.values())

    def published(self) -> list[Replica]:
        return [each for each in self.replicas.values() if each.is_published]

    def publish(self, endpoints: Iterable[Endpoint], weights: Mapping[str, float] | None) -> None:
        """Replace the replicas that may be chosen, and admit whom the new ones have room for."""
        found = {endpoint.replica_id: endpoint for endpoint in endpoints}
        for replica_id, endpoint in found.items():
            known = self.replicas.get(replica_id)
            if known is None:
                self.replicas[replica_id] = Replica(endpoint)
            else:
                known.publish(endpoint)
        for each in [each for each in self.published() if each.endpoint.replica_id not in found]:
            each.is_published = False
            self._forget_when_empty(each)
        self.weights = weights
        self.admit()

    # --- admission ---

    def expected(self, ask: Ask) -> int:
        """The tokens that a request is expected to be."""
        return max(1, ask.prompt_tokens + self.output_mean.expected_tokens(ask.most_tokens))

    def arrived(self, tokens: int) -> None:
        self.arrivals += 1
        self.arrived_tokens += tokens

    def take(self, ask: Ask, tokens: int) -> Slot | None:
        """A slot now; None when the request has to be held, also because others came before it."""
        first = self.line.first()
        if not ask.returning and first is not None and first.priority <= ask.priority:
            return None
        return self._place(ask, tokens)

    def has_room(self, priority: Priority) -> bool:
        """Whether `take` would give a slot to a request of this priority."""
        first, now = self.line.first(), self.clock.monotonic()
        return (first is None or first.priority > priority) and any(
            each.has_room(priority, now)
            for each in self.published()
            if not each.standing.is_ejected(now)
        )

    def hold(self, ask: Ask, tokens: int) -> Waiter:
        """Let a request wait. Whoever awaits its `slot` calls `leave` afterwards."""
        waiter = Waiter(ask, tokens, asyncio.get_running_loop().create_future())
        self.held_tokens += tokens
        if ask.exclude:
            self.retries[waiter] = None
        else:
            self.line.push(waiter, front=ask.returning)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Forget a waiter that gave up, and give back the slot that it was given meanwhile."""
        if waiter.is_held:
            if waiter.ask.exclude:
                del self.retries[waiter]
            else:
                self.line.remove(waiter)
            self._out(waiter)
        elif not waiter.slot.cancelled() and waiter.slot.exception() is None:
            waiter.slot.result().release()

    def admit(self) -> None:
        """Give free slots to those that are next."""
        for waiter in list(self.retries):
            if not waiter.slot.done() and (slot := self._place(waiter.ask, waiter.tokens)):
                del self.retries[waiter]
                self._out(waiter).set_result(slot)
        while first := self.line.first():
            if first.slot.done():  # it gave up, and is about to say so
                self.line.remove(first)
                self._out(first)
            elif slot := self._place(first.ask, first.tokens):
                self.line.pop()
                self._out(first).set_result(slot)
            else:
                return

    def refuse(self, refusal: Callable[[], Unavailable]) -> None:
        """Answer everybody who is held with an error of their own."""
        waiting = [*self.retries, *(self.line.pop() for _ in range(len(self.line)))]
        self.retries.clear()
        for waiter in waiting:
            slot = self._out(waiter)
            if not slot.done():
                slot.set_exception(refusal())

    # --- what is said of replicas ---

    def failed(self, slot: Slot, *, dead: bool) -> None:
        """A request got no usable answer; `dead` when nobody listens there."""
        each = slot.replica
        each.standing = each.standing.after_failure()
        self.wanted.set()
        if dead or each.standing.is_suspect:
            self.eject(each, dead=dead)

    def eject(self, each: Replica, *, dead: bool) -> None:
        """Leave a replica out for a while, if not too many are; who waits there goes elsewhere."""
        now = self.clock.monotonic()
        self.wanted.set()
        published = self.published()
        ejected = sum(one.standing.is_ejected(now) for one in published)
        spared = each.is_published and not may_eject(ejected, len(published), dead=dead)
        if spared or each.standing.is_ejected(now):
            return
        each.standing = each.standing.after_ejection(now)
        self._admit_in(each.standing.until - now)
        for slot in list(each.slots):
            slot.displace()

    def full(self, slot: Slot, retry_after_s: float) -> None:
        """The replica takes no more for now; that is no fault."""
        slot.replica.full_until = self.clock.monotonic() + retry_after_s
        self._admit_in(retry_after_s)

    def may_retry(self) -> bool:
        """Whether the budget allows one more request a second replica."""
        published = self.published()
        largest = max((slots(each.endpoint.capacity) for each in published), default=0)
        waiting = sum(
            bool(slot.ask.exclude and slot.first_byte)
            for each in self.replicas.values()
            for slot in each.slots
        )
        return may_retry(len(self.retries) + waiting, self.in_flight, largest)

    # --- inside ---

    def _place(self, ask: Ask, tokens: int) -> Slot | None:
        now = self.clock.monotonic()
        serving = [each for each in self.published() if not each.standing.is_ejected(now)]
        others = [each for each in serving if each.endpoint.replica_id not in ask.exclude]
        free = [each for each in others or serving if each.has_room(ask.priority, now)]
        if self.weights is not None and free:
            free = self._of_revision(free, self.weights)
        chosen = choose([each.candidate(ask) for each in free])
        if chosen is None:
            return None
        self.last_activity = now
        return Slot(self.replicas[chosen], ask, tokens, self._given_back)

    def _of_revision(self, free: list[Replica], weights: Mapping[str, float]) -> list[Replica]:
        """Those of the revision whose turn it is. One without a share stands in for none at all."""
        there = {each.endpoint.revision_id for each in self.published()}
        shares = {name: weight for name, weight in weights.items() if weight > 0 and name in there}
        able = {each.endpoint.revision_id for each in free}
        if not shares:
            return free
        able &= shares.keys()
        if not able:
            return []
        drawn, self._credits = draw(self._credits, shares, able)
        return [each for each in free if each.endpoint.revision_id == drawn]

    def _out(self, waiter: Waiter) -> asyncio.Future[Slot]:
        waiter.is_held = False
        self.held_tokens -= waiter.tokens
        return waiter.slot

    def _given_back(self, slot: Slot) -> None:
        self.last_activity = self.clock.monotonic()
        self.finished_tokens += slot.finished_tokens
        if slot.output_tokens is not None:
            self.output_mean = self.output_mean.after(slot.output_tokens)
        self._forget_when_empty(slot.replica)
        self.admit()

    def _forget_when_empty(self, each: Replica) -> None:
        replica_id = each.endpoint.replica_id
        if not each.is_published and not each.slots and self.replicas.get(replica_id) is each:
            del self.replicas[replica_id]

    def _admit_in(self, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self.admit)
