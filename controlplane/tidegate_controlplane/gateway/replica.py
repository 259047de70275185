"""One replica as the gateway sees it, and the slots that its requests hold.

What is in flight is what is in the set of slots: a slot is given back once, however often it is
asked to, so no counter can leak or go below zero.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from tidegate.protocol.replica import Priority
from tidegate_controlplane.domain.ejection import GOOD, Standing
from tidegate_controlplane.domain.prefix import PrefixMemory
from tidegate_controlplane.domain.routing import Candidate, slots
from tidegate_controlplane.gateway.catalog import Adapter


@dataclass(frozen=True)
class Endpoint:
    """One ready replica: where it listens, and the token it wants."""

    replica_id: str
    url: str
    token: str = field(repr=False)
    capacity: int
    """Requests it decodes in one batch."""
    revision_id: str = ""

    @property
    def shown(self) -> ShownEndpoint:
        return ShownEndpoint(self.replica_id, self.url, self.capacity, self.revision_id)


@dataclass(frozen=True)
class ShownEndpoint:
    """An endpoint without its token."""

    replica_id: str
    url: str
    capacity: int
    revision_id: str

    def with_token(self, token: str) -> Endpoint:
        return Endpoint(self.replica_id, self.url, token, self.capacity, self.revision_id)


@dataclass(frozen=True)
class Ask:
    """What a request brings with it, as far as its place is concerned."""

    project_id: str = ""
    priority: Priority = Priority.SYNC
    prompt_tokens: int = 0
    """An estimate, before a replica has counted."""
    most_tokens: int | None = None
    """Of output, as the caller bounded it."""
    prefix: tuple[int, ...] = ()
    """Hashes of the blocks that its prompt begins with."""
    exclude: frozenset[str] = frozenset()
    """Replicas that failed it; they are chosen only when there is no other."""
    returning: bool = False
    """It was admitted before, and goes to the front."""


@dataclass(eq=False)
class Slot:
    """A request's place on a replica, until it is given back."""

    replica: Replica
    ask: Ask
    tokens: int
    """Its prompt and its expected output."""
    on_change: Callable[[Slot], None]
    """Called once, when it is given back."""
    first_byte: asyncio.Timeout | None = None
    """The limit of the wait for its first byte, while it waits for that."""
    has_begun: bool = False
    """Its first byte came."""
    is_displaced: bool = False
    """Its replica was ejected before the first byte."""
    finished_tokens: int = 0
    """What was really computed, once that is known."""
    output_tokens: int | None = None
    _work: int = 0

    def __post_init__(self) -> None:
        self._work = self.tokens
        self.replica.enter(self, self._work)

    @property
    def replica_id(self) -> str:
        return self.replica.endpoint.replica_id

    @property
    def endpoint(self) -> Endpoint:
        return self.replica.endpoint

    def begun(self) -> None:
        """Its first byte is here: the prompt is computed, and the replica answers."""
        self.has_begun = True
        self.replica.standing = GOOD
        if self in self.replica.slots:
            self.replica.work_tokens -= self.ask.prompt_tokens
            self._work -= self.ask.prompt_tokens

    def used(self, prompt_tokens: int, output_tokens: int) -> None:
        """Say what the request really was."""
        self.finished_tokens = prompt_tokens + output_tokens
        self.output_tokens = output_tokens

    def displace(self) -> None:
        """End the wait for its first byte, so that it can be given to another replica."""
        if self.first_byte is not None and not self.first_byte.expired():
            self.is_displaced = True
            self.first_byte.reschedule(asyncio.get_running_loop().time())

    def release(self) -> None:
        """Give the place back; again: nothing."""
        if self in self.replica.slots:
            self.replica.leave(self, self._work)
            self.on_change(self)


@dataclass(eq=False)
class Replica:
    """What is known of one replica, and what it has in flight."""

    endpoint: Endpoint
    is_published: bool = True
    slots: set[Slot] = field(default_factory=set)
    work_tokens: int = 0
    in_flight_tokens: int = 0
    standing: Standing = GOOD
    full_until: float = -math.inf
    """It said that it takes no more, until then or until one of its requests ends."""
    prefixes: PrefixMemory = field(default_factory=PrefixMemory)
    adapters: set[Adapter] = field(default_factory=set)
    """Those that it was told of."""
    _by_priority: list[int] = field(default_factory=lambda: [0] * len(Priority))

    def publish(self, endpoint: Endpoint) -> None:
        """It is ready as `endpoint` says; at another address it is another process."""
        if endpoint.url != self.endpoint.url:
            self.standing, self.prefixes, self.adapters = GOOD, PrefixMemory(), set()
        self.endpoint, self.is_published = endpoint, True

    def is_waited_for(self) -> bool:
        """Whether a request waits for its first byte."""
        return any(slot.first_byte is not None for slot in self.slots)

    def has_room(self, priority: Priority, now: float) -> bool:
        """Whether a request may be sent to it.

        Work that can wait does not take the room of work that cannot: the replica's engine lets
        it stand aside within a step.
        """
        ahead = sum(self._by_priority[: priority + 1])
        return ahead < slots(self.endpoint.capacity) and self.full_until <= now

    def candidate(self, ask: Ask) -> Candidate:
        return Candidate(
            self.endpoint.replica_id,
            self.work_tokens,
            self.endpoint.capacity,
            self.prefixes.saved_tokens(ask.prefix),
        )

    def enter(self, slot: Slot, work_tokens: int) -> None:
        self.slots.add(slot)
        self._count(slot, 1, work_tokens)
        self.prefixes.remember(slot.ask.prefix)

    def leave(self, slot: Slot, work_tokens: int) -> None:
        self.slots.remove(slot)
        self._count(slot, -1, work_tokens)
        if slot.has_begun:  # one that it refused makes no room
            self.full_until = -math.inf

    def _count(self, slot: Slot, sign: int, work_tokens: int) -> None:
        self._by_priority[slot.ask.priority] += sign
        self.work_tokens += sign * work_tokens
        self.in_flight_tokens += sign * slot.tokens
