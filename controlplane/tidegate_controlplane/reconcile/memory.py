"""What the loop remembers between passes: durations, measured on the monotonic clock.

Losing it costs nothing but patience: after a restart a back-off, a peak or a bake starts anew.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tidegate.protocol.resources import ReplicaPhase


@dataclass
class ReplicaMemory:
    """When this process saw a replica enter a phase, in monotonic seconds."""

    entered: dict[ReplicaPhase, float] = field(default_factory=dict)

    def enter(self, phase: ReplicaPhase, now: float) -> None:
        """Note the phase, unless it was noted before."""
        self.entered.setdefault(phase, now)

    def since(self, phase: ReplicaPhase, now: float) -> float | None:
        began = self.entered.get(phase)
        return None if began is None else now - began


@dataclass
class StageMemory:
    """Which stage of a rollout this process watches, and since when, in monotonic seconds."""

    key: str = ""
    began: float = 0.0
    noted: float = 0.0
    """When its figures were last written down."""

    def enter(self, key: str, now: float) -> None:
        """Begin to watch `key`, unless it is watched already."""
        if key != self.key:
            self.key, self.began, self.noted = key, now, now

    def watched_s(self, key: str, now: float) -> float:
        """For how long `key` has been watched; 0 when it was not yet."""
        return now - self.began if key == self.key else 0.0


@dataclass
class DeploymentMemory:
    """Recent calls for replicas, and the replicas of one deployment."""

    calls: deque[tuple[float, int]] = field(default_factory=deque)
    replicas: dict[str, ReplicaMemory] = field(default_factory=dict)
    stage: StageMemory = field(default_factory=StageMemory)

    def replica(self, replica_id: str) -> ReplicaMemory:
        return self.replicas.setdefault(replica_id, ReplicaMemory())

    def recent_peak(self, now: float, window_s: float) -> int:
        """The most replicas that work called for within the window."""
        while self.calls and now - self.calls[0][0] > window_s:
            self.calls.popleft()
        return max((count for _, count in self.calls), default=0)

    def remember_call(self, now: float, count: int) -> None:
        if not self.calls or self.calls[-1][1] != count or now - self.calls[-1][0] > 1.0:
            self.calls.append((now, count))

    def keep_only(self, replica_ids: set[str]) -> None:
        self.replicas = {key: value for key, value in self.replicas.items() if key in replica_ids}
