"""What the other control planes are asked for, from the rows that they write.

A row whose beat has not changed for a while is that of a control plane that is gone or stopped, and
its requests with it: it counts no longer. Counters that only rise are added up by their
differences, so that neither a newcomer nor one that is gone looks like a burst.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict

from tidegate_controlplane.gateway.demand import Demand
from tidegate_controlplane.store.tables import ControlPlane


class Told(BaseModel):
    """What one control plane tells of its requests."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    demand: dict[str, Demand]
    """By deployment id."""
    in_flight: dict[str, int]
    """By replica id."""


@dataclass(frozen=True)
class Heard:
    """One control plane's row, and since when it is just so (monotonic seconds)."""

    beat: int
    since_s: float
    told: Told
    seen: int


class Crowd:
    """The other control planes that live."""

    def __init__(self, stale_s: float) -> None:
        self._stale_s = stale_s
        self._now_s = 0.0
        self._heard: dict[str, Heard] = {}
        self._rising: defaultdict[str, Demand] = defaultdict(_nothing)
        """Only the counters: what was counted elsewhere since this process looks."""

    def see(self, rows: Iterable[ControlPlane], now_s: float) -> bool:
        """Take note of every row; whether one that is new says that requests are held."""
        self._now_s = now_s
        before, self._heard = self._heard, {}
        held = False
        for row in rows:
            last = before.get(row.id)
            if last is not None and last.beat == row.beat:
                self._heard[row.id] = last
                continue
            told = Told.model_validate(row.demand)
            self._heard[row.id] = Heard(row.beat, now_s, told, row.seen)
            held |= any(demand.held for demand in told.demand.values())
            if last is not None:
                self._count(last.told, told)
        return held

    def silent(self, for_s: float) -> list[str]:
        """Those whose rows have not changed for so long."""
        return [key for key, heard in self._heard.items() if self._now_s - heard.since_s >= for_s]

    @property
    def has_any(self) -> bool:
        return bool(self._living())

    def lags(self, published: int) -> bool:
        """Whether one may still go by what was published before."""
        return any(heard.seen != published for heard in self._living())

    def demand(self, deployment_id: str) -> Iterator[Demand]:
        for heard in self._living():
            if found := heard.told.demand.get(deployment_id):
                idle_s = found.idle_s
                if idle_s is not None and not (found.held or found.in_flight):
                    idle_s += self._now_s - heard.since_s
                yield replace(found, idle_s=idle_s, **_NO_COUNTERS)
        if deployment_id in self._rising:
            yield self._rising[deployment_id]

    def in_flight_on(self, replica_id: str) -> int:
        return sum(heard.told.in_flight.get(replica_id, 0) for heard in self._living())

    def is_served(self) -> bool:
        """Whether one has a request on any replica."""
        return any(any(heard.told.in_flight.values()) for heard in self._living())

    def _living(self) -> list[Heard]:
        return [h for h in self._heard.values() if self._now_s - h.since_s < self._stale_s]

    def _count(self, before: Told, after: Told) -> None:
        for deployment_id, new in after.demand.items():
            old, sum_ = before.demand.get(deployment_id, _nothing()), self._rising[deployment_id]
            self._rising[deployment_id] = replace(
                sum_,
                arrivals=sum_.arrivals + max(0, new.arrivals - old.arrivals),
                arrived_tokens=sum_.arrived_tokens
                + max(0, new.arrived_tokens - old.arrived_tokens),
                finished_tokens=sum_.finished_tokens
                + max(0, new.finished_tokens - old.finished_tokens),
            )


_NO_COUNTERS = {"arrivals": 0, "arrived_tokens": 0, "finished_tokens": 0}


def _nothing() -> Demand:
    return Demand(held=0, in_flight=0, idle_s=None)
