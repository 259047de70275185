"""The numbers of one pass over a deployment: its replicas, and why there are so many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tidegate.protocol.resources import DeploymentPhase, ReplicaPhase
from tidegate_controlplane.gateway.metrics import Metrics
from tidegate_controlplane.reconcile.write import FINAL, Outcome

_SHOWN = [phase for phase in ReplicaPhase if phase not in FINAL]


def measure(metrics: Metrics, outcome: Outcome, phases_before: Iterable[tuple[str, str]]) -> None:
    """Note a pass after it was written; `phases_before` are its replicas' ids and phases, before.

    The numbers of a deleted deployment go with it.
    """
    name = outcome.declared.row.name
    if outcome.step.phase is DeploymentPhase.DELETED:
        _forget(metrics, name)
        return
    for cold_start_s in outcome.seen.cold_start_s.values():
        metrics.cold_start.labels(name).observe(cold_start_s)
    for replica_id, phase in phases_before:
        change = outcome.changes.get(replica_id)
        if change and change.phase is ReplicaPhase.FAILED:
            metrics.ejections.labels(name, phase, change.reason or "Failed").inc()
    metrics.decisions.labels(name, outcome.decision.term.value).inc()
    metrics.desired.labels(name).set(outcome.decision.desired)
    found = Counter(replica.phase for replica in (*outcome.declared.replicas, *outcome.created))
    for shown in _SHOWN:
        metrics.replicas.labels(name, shown.value).set(found[shown.value])


def _forget(metrics: Metrics, name: str) -> None:
    labels = {"deployment": name}
    for kept in (metrics.desired, metrics.replicas):
        kept.remove_by_labels(labels)
