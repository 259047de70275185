"""How many replicas the machine's memory has room for.

Counted with the memory that plans predict, of every replica whose process may still run. Whether
there is capacity for a replica that runs elsewhere is for its place to say.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tidegate.protocol.resources import ResolvedPlan
from tidegate.spec import SpecIssue, Strategy
from tidegate_controlplane.domain.plan import machine_bytes
from tidegate_controlplane.domain.size import size

BOTH_AT_ONCE = frozenset({Strategy.CANARY, Strategy.BLUE_GREEN, Strategy.SHADOW})
"""Strategies that cannot do without the former revision beside the new one."""


@dataclass(frozen=True)
class Room:
    """Memory for the replicas of one deployment."""

    total_bytes: int
    free_bytes: int
    """What no replica takes; less than 0 when they were planned before this was counted."""
    replica_bytes: Mapping[str, int]
    """Predicted memory that one replica takes of the machine, by revision id; 0 elsewhere."""

    def fits(self, revision_id: str) -> int:
        """Further replicas of a revision that there is room for."""
        each = self.replica_bytes[revision_id]
        return max(0, self.free_bytes // each) if each else sys.maxsize

    def after(self, revision_id: str, count: int) -> Room:
        """What is left when `count` more replicas of a revision have started."""
        taken = count * self.replica_bytes[revision_id]
        return replace(self, free_bytes=self.free_bytes - taken)

    def shortage(self, revision_id: str) -> str:
        """Why no further replica fits, with the figures."""
        return (
            f"one more replica needs {size(self.replica_bytes[revision_id])}, and "
            f"{size(max(0, self.free_bytes))} of this machine's {size(self.total_bytes)} are free"
        )


def refusal(
    plan: ResolvedPlan,
    former: ResolvedPlan | None,
    strategy: Strategy,
    *,
    reserved_bytes: int,
    total_bytes: int,
) -> SpecIssue | None:
    """Why a declaration can never be served beside what other deployments always keep.

    `former` is the plan of the revision that the new one takes over from, None when there is none.
    """
    own_bytes = machine_bytes(plan)
    if not own_bytes:
        return None
    floor = max(1, plan.min_replicas)
    free = f"{size(max(0, total_bytes - reserved_bytes))} of {size(total_bytes)} are not reserved"
    alone = floor * own_bytes
    if alone > total_bytes - reserved_bytes:
        return SpecIssue(
            "scaling.min_replicas",
            plan.min_replicas,
            f"{_replicas(floor)} of {size(own_bytes)} do not fit: {free} by what other "
            "deployments always keep; lower it, or the minimum of another deployment",
        )
    if former is None or strategy not in BOTH_AT_ONCE:
        return None
    news = floor if strategy is Strategy.BLUE_GREEN else 1
    both = floor * machine_bytes(former) + news * own_bytes
    if both <= total_bytes - reserved_bytes:
        return None
    return SpecIssue(
        "rollout.strategy",
        strategy.value,
        f"{_replicas(floor)} of the former revision and {news} of the new one need {size(both)} at "
        f"once, and {free}; use rolling, which replaces in place, or recreate",
    )


def _replicas(count: int) -> str:
    return f"{count} replica{'s' if count != 1 else ''}"
