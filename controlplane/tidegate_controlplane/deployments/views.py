"""Rows as their readers see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tidegate.protocol.resources import (
    ComparisonView,
    Condition,
    DecisionView,
    DeploymentPhase,
    DeploymentView,
    EventView,
    ModelFacts,
    ModelVersionView,
    ModelView,
    ReplicaCounts,
    ReplicaPhase,
    ReplicaView,
    ResolvedPlan,
    RevisionView,
    RolloutPhase,
    RolloutView,
    Severity,
)
from tidegate.spec import DeploymentSpec, Mode, RolloutSpec
from tidegate_controlplane.domain.group import STARTING
from tidegate_controlplane.domain.rollout import Requested, stages
from tidegate_controlplane.store.tables import (
    Decision,
    Deployment,
    Event,
    Model,
    ModelVersion,
    Replica,
    Revision,
    Rollout,
)


def deployment_view(row: Deployment, replicas: Sequence[Replica]) -> DeploymentView:
    phases = Counter(ReplicaPhase(replica.phase) for replica in replicas)
    return DeploymentView(
        id=row.id,
        name=row.name,
        mode=Mode(row.mode),
        phase=DeploymentPhase(row.phase),
        message=row.message,
        spec=DeploymentSpec.model_validate(row.spec),
        generation=row.generation,
        observed_generation=row.observed_generation,
        revision=row.serving_revision_id,
        replicas=ReplicaCounts(
            desired=row.desired_replicas,
            starting=sum(phases[phase] for phase in STARTING),
            ready=phases[ReplicaPhase.READY],
            draining=phases[ReplicaPhase.DRAINING],
        ),
        conditions=[Condition.model_validate(condition) for condition in row.conditions],
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def revision_view(row: Revision) -> RevisionView:
    return RevisionView(
        id=row.id,
        number=row.number,
        generation=row.generation,
        model_version=row.model_version_id,
        plan=ResolvedPlan.model_validate(row.plan),
        created_at=row.created_at,
    )


def replica_view(row: Replica, in_flight: int) -> ReplicaView:
    return ReplicaView(
        id=row.id,
        revision=row.revision_id,
        phase=ReplicaPhase(row.phase),
        pid=row.pid,
        port=row.port,
        where=row.where,
        reason=row.reason,
        message=row.message,
        in_flight=in_flight,
        cold_start_s=row.cold_start_s,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def event_view(row: Event) -> EventView:
    return EventView(
        id=str(row.seq),
        time=row.time,
        object=row.object,
        severity=Severity(row.severity),
        reason=row.reason,
        message=row.message,
    )


def rollout_view(
    row: Rollout, deployment: Deployment, revisions: Mapping[str, Revision]
) -> RolloutView:
    """`revisions` holds both of its own, by id."""
    options = RolloutSpec.model_validate(row.options)
    return RolloutView(
        id=row.id,
        deployment=deployment.name,
        strategy=options.strategy,
        phase=RolloutPhase(row.phase),
        step=row.step,
        steps=len(stages(options)),
        from_revision=revisions[row.from_revision_id].number,
        to_revision=revisions[row.to_revision_id].number,
        weight=row.weight,
        requested=requested_of(row.requested),
        reason=row.reason,
        message=row.message,
        comparison=ComparisonView.model_validate(row.comparison) if row.comparison else None,
        created_at=row.created_at,
        updated_at=row.updated_at,
        finished_at=row.finished_at,
    )


def requested_of(text: str | None) -> Requested:
    """What was asked of a rollout."""
    return "promote" if text == "promote" else "abort" if text == "abort" else None


def decision_view(row: Decision) -> DecisionView:
    return DecisionView(
        id=str(row.seq),
        time=row.time,
        desired=row.desired,
        called_for=row.called_for,
        term=row.term,
        sentence=row.sentence,
        inputs=row.inputs,
    )


def model_view(model: Model, versions: Sequence[ModelVersion]) -> ModelView:
    return ModelView(
        id=model.id,
        source=model.source,
        task=model.task,
        versions=[
            ModelVersionView(
                id=version.id,
                digest=version.digest,
                source=model.source,
                revision=version.revision,
                facts=ModelFacts.model_validate(version.facts),
                created_at=version.created_at,
            )
            for version in versions
        ],
        created_at=model.created_at,
    )
