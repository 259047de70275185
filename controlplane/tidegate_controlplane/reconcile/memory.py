"""What the loop remembers between passes: durations, measured on the monotonic clock.

Losing it costs nothing but patience: after a restart a back-off or a bake starts anew, and so does
learning.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tidegate.protocol.resources import ReplicaPhase
from tidegate_controlplane.domain.autoscale import Decision, Term
from tidegate_controlplane.domain.history import History

TERM_REST_S = 10.0
"""Between two records of one count whose reason changed."""


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


@dataclass(frozen=True)
class Recorded:
    """A decision as it was written, and when."""

    desired: int
    term: Term
    at_s: float


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
    """What the autoscaler learned of one deployment, and its replicas."""

    history: History = field(default_factory=History)
    recorded: Recorded | None = None
    """The decision that was written last."""
    replicas: dict[str, ReplicaMemory] = field(default_factory=dict)
    stage: StageMemory = field(default_factory=StageMemory)

    def replica(self, replica_id: str) -> ReplicaMemory:
        return self.replicas.setdefault(replica_id, ReplicaMemory())

    def is_news(self, decision: Decision, now: float) -> bool:
        """Whether a decision is to be written: another count, or another reason after a while.

        A deployment with few requests changes its reason with each of them, which is no news.
        """
        last = self.recorded
        if last is None or last.desired != decision.desired:
            return True
        return last.term is not decision.term and now - last.at_s >= TERM_REST_S

    def keep_only(self, replica_ids: set[str]) -> None:
        self.replicas = {key: value for key, value in self.replicas.items() if key in replica_ids}
