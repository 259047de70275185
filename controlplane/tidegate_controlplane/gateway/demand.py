"""What deployments are asked for, here and in other control planes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Demand:
    """What one deployment is asked for at this moment, and was since the process began."""

    held: int
    in_flight: int
    idle_s: float | None
    """Seconds since the last request ended; 0 while there is one, None when there was none yet."""
    held_tokens: int = 0
    """Prompt and expected output of what is held."""
    in_flight_tokens: int = 0
    """The same of what replicas have."""
    arrivals: int = 0
    """Requests that ever asked for a replica, each once; also those that were refused."""
    arrived_tokens: int = 0
    """Their prompts and expected outputs."""
    finished_tokens: int = 0
    """Prompts and outputs as they really were, of requests that ended."""


class Elsewhere(Protocol):
    """What the other control planes said of theirs."""

    def demand(self, deployment_id: str) -> Iterable[Demand]: ...

    def in_flight_on(self, replica_id: str) -> int: ...

    def lags(self) -> bool:
        """Whether one may still choose a replica that is not published any more."""
        ...


class Nowhere:
    """Implements `Elsewhere`: there is no other control plane."""

    def demand(self, deployment_id: str) -> Sequence[Demand]:
        del deployment_id
        return ()

    def in_flight_on(self, replica_id: str) -> int:
        del replica_id
        return 0

    def lags(self) -> bool:
        return False


NOWHERE = Nowhere()


def combined(demands: Sequence[Demand]) -> Demand:
    """Of all of them together; idle since the last one was."""
    if len(demands) == 1:
        return demands[0]
    idle = [each.idle_s for each in demands if each.idle_s is not None]
    return Demand(
        held=sum(each.held for each in demands),
        in_flight=sum(each.in_flight for each in demands),
        idle_s=min(idle, default=None),
        held_tokens=sum(each.held_tokens for each in demands),
        in_flight_tokens=sum(each.in_flight_tokens for each in demands),
        arrivals=sum(each.arrivals for each in demands),
        arrived_tokens=sum(each.arrived_tokens for each in demands),
        finished_tokens=sum(each.finished_tokens for each in demands),
    )
