"""What the gateway is told: which replicas answer requests, and whose answers are compared."""

from __future__ import annotations

from dataclasses import replace

from tidegate.protocol.resources import ComparisonView, ReplicaPhase
from tidegate_controlplane.domain.reconcile import Step
from tidegate_controlplane.errors import Unavailable
from tidegate_controlplane.gateway.endpoints import Endpoint, Endpoints
from tidegate_controlplane.gateway.trials import Trial, Trials
from tidegate_controlplane.provision.base import Provisioner
from tidegate_controlplane.reconcile.memory import StageMemory
from tidegate_controlplane.reconcile.observe import Declared, usual_cold_start_s
from tidegate_controlplane.reconcile.watch import is_watched, phase_key, stage_key
from tidegate_controlplane.settings import ReconcileSettings
from tidegate_controlplane.store.tables import Replica, Rollout


class Traffic:
    """Tells the gateway at each pass; it goes by that until the next one."""

    def __init__(
        self,
        provisioner: Provisioner,
        endpoints: Endpoints,
        trials: Trials,
        settings: ReconcileSettings,
    ) -> None:
        self._provisioner = provisioner
        self._endpoints = endpoints
        self._trials = trials
        self._settings = settings

    def publish(self, declared: Declared, replicas: list[Replica], done: Step) -> None:
        """Offer the ready replicas of the revisions with a share; of any other without such."""
        ready = [r for r in replicas if r.phase == ReplicaPhase.READY]
        offered = [r for r in ready if done.weights.get(r.revision_id)] or ready
        hopeless = None
        if done.hopeless:
            hopeless = Unavailable(
                f"deployment {declared.row.name!r} cannot answer: {done.hopeless}",
                code="deployment_failed",
                retry_after_s=done.retry_in_s or self._settings.backoff_max_s,
            )
        self._endpoints.publish(
            declared.row.id,
            self._endpoints_of(offered),
            hopeless=hopeless,
            cold_start_s=usual_cold_start_s(declared),
            weights=done.weights,
        )

    def _endpoints_of(self, replicas: list[Replica]) -> list[Endpoint]:
        found = [(self._provisioner.endpoint(r.id), r.revision_id) for r in replicas]
        return [replace(endpoint, revision_id=key) for endpoint, key in found if endpoint]

    def watch(
        self,
        declared: Declared,
        replicas: list[Replica],
        done: Step,
        stage: StageMemory,
        now: float,
    ) -> None:
        """Begin, go on with or end the trial that the rollout's present stage calls for."""
        rollout, at = declared.rollout, done.rollout
        if rollout is None or at is None or not is_watched(rollout, at):
            self._trials.end(declared.row.id)
            return
        stage.enter(phase_key(rollout), now)
        new = [
            r
            for r in replicas
            if (r.revision_id, r.phase) == (rollout.to_revision_id, ReplicaPhase.READY)
        ]
        trial = Trial(
            key=stage_key(rollout),
            stable_id=rollout.from_revision_id,
            new_id=rollout.to_revision_id,
            copied=at.copied,
            targets=self._endpoints_of(new),
        )
        self._trials.begin(declared.row.id, trial)

    def comparison(self, rollout: Rollout | None) -> ComparisonView | None:
        """How the revisions compare in the rollout's present stage, so far."""
        return self._trials.view(rollout.deployment_id, stage_key(rollout)) if rollout else None
