"""One deployment in AWS: its replicas, the components that they are copies of, its stack.

Copies are all alike and SageMaker does not name them, so which replica is which copy is said here:
with N copies in service, the first N replicas in the order of their start are ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NoReturn

from tidegate_controlplane.domain.replicas import Exited, NoCapacity
from tidegate_controlplane.provision.aws.copies import Seen
from tidegate_controlplane.provision.aws.failures import Failure
from tidegate_controlplane.provision.base import Launch

Ended = Exited | NoCapacity


@dataclass(eq=False)
class Replica:
    """One replica, which is a copy once there is one for it."""

    launch: Launch
    began_s: float
    """Monotonic."""
    began_at: datetime
    is_ready: bool = False
    is_unwanted: bool = False
    """It was drained or killed, and ends with its copy."""
    ended: Ended | None = None

    @property
    def is_live(self) -> bool:
        return not self.is_unwanted and self.ended is None


@dataclass(eq=False)
class Component:
    """The replicas of one revision."""

    name: str
    launch: Launch
    """Of any of them: they are alike."""
    replicas: dict[str, Replica] = field(default_factory=dict)
    """In the order of their start."""
    seen: Seen | None = None
    asked_for: frozenset[str] = frozenset()
    """The replicas that waited for a copy when copies were asked for last."""

    @property
    def waiting(self) -> list[str]:
        """Live ones without a copy."""
        return [each.launch.replica_id for each in self.live if not each.is_ready]

    def tries_anew(self, seen: Seen) -> bool:
        """Whether AWS gave up before one of those that wait now had come."""
        return bool(seen.why_fewer and not self.asked_for.issuperset(self.waiting))

    @property
    def live(self) -> list[Replica]:
        return [each for each in self.replicas.values() if each.is_live]

    def leaving(self, seen: Seen | None) -> list[Replica]:
        """Those that are about to end, or to be given up, if this is how it stands."""
        current = seen.current if seen else 0
        fewer = bool(seen and seen.why_fewer)  # so it is given up
        lost = [each for each in self.live[current:] if each.is_ready or fewer]
        unwanted = (each for each in self.replicas.values() if each.is_unwanted)
        return [*lost, *(each for each in unwanted if each.ended is None)]

    def judge(self, seen: Seen | None, lost: Ended) -> None:
        """Take note of what SageMaker says: who is ready now, who has ended, and why.

        `lost` is what becomes of a replica that was ready and has no copy any more.
        """
        self.seen = seen
        current = seen.current if seen else 0
        live = self.live
        for number, each in enumerate(live):
            if number < current:
                each.is_ready = True
            elif each.is_ready:
                each.ended = lost
        for each in self.replicas.values():
            if each.is_unwanted and each.ended is None and current <= len(live):
                each.ended = Exited(0, "Drained", "its copy has ended")

    def fail(self, why: Ended) -> None:
        """No copy will come for those that wait for one."""
        for each in self.live:
            if not each.is_ready:
                each.ended = why


@dataclass(eq=False)
class Site:
    """One deployment."""

    deployment_id: str
    components: dict[str, Component] = field(default_factory=dict)
    """By revision id, in the order of their first start."""
    applied: frozenset[str] | None = None
    """The revisions in the stack as it was brought up last; None when that is not known."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Somebody wants something else now."""
    to_repair: bool = False
    """Something in AWS is not as the stack left it: the next change looks first."""
    failure: Failure | None = None
    """Of the last step, when it failed."""
    drift: tuple[str, ...] = ()
    """What was not as the stack left it when that was looked for last."""
    looked_s: float = 0.0
    """When that was, monotonic."""
    keeping: asyncio.Task[NoReturn] | None = None

    def add(self, component: str, replica: Replica) -> None:
        """A replica that shall be."""
        launch = replica.launch
        known = self.components.setdefault(launch.revision_id, Component(component, launch))
        known.replicas[launch.replica_id] = replica
        self.changed.set()

    def find(self, replica_id: str) -> tuple[Component, Replica] | None:
        for component in self.components.values():
            if each := component.replicas.get(replica_id):
                return component, each
        return None

    def replicas(self) -> Iterable[Replica]:
        return (each for one in self.components.values() for each in one.replicas.values())

    @property
    def declared(self) -> frozenset[str]:
        """The revisions that its stack shall have: those with replicas, or else the last one.

        A deployment that rests at zero keeps its endpoint: it costs nothing without a copy, and
        making it takes minutes.
        """
        used = [key for key, component in self.components.items() if component.replicas]
        return frozenset(used or list(self.components)[-1:])

    @property
    def is_wanted(self) -> bool:
        """Whether any replica shall be there."""
        return any(each.is_live for each in self.replicas())

    @property
    def is_moving(self) -> bool:
        """Whether something is on its way up or down."""
        return any(
            each.ended is None and (each.is_unwanted or not each.is_ready)
            for each in self.replicas()
        )

    @property
    def standing(self) -> list[tuple[str, bool, bool]]:
        """What is observed of its replicas, to see whether that has changed."""
        return [
            (each.launch.replica_id, each.is_ready, each.ended is None) for each in self.replicas()
        ]

    def prune(self) -> None:
        """Forget the revisions that the stack has no more."""
        for key in [key for key in self.components if key not in self.declared]:
            del self.components[key]
