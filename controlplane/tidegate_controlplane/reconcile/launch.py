"""What a provisioner is told of replicas, from their rows."""

from __future__ import annotations

from sqlmodel import Session

from tidegate.protocol.resources import ResolvedPlan
from tidegate.spec import Mode
from tidegate_controlplane.provision.base import FormerReplica, Launch
from tidegate_controlplane.store.deployments import revisions_of, unfinished_replicas
from tidegate_controlplane.store.tables import Deployment, ModelVersion, Replica, Revision


def launch_of(session: Session, deployment: Deployment, replica: Replica) -> Launch:
    """What starts a replica: its revision, as it was planned."""
    revision = session.get_one(Revision, replica.revision_id)
    version = session.get_one(ModelVersion, revision.model_version_id)
    return Launch(
        replica_id=replica.id,
        deployment_id=deployment.id,
        revision_id=revision.id,
        mode=Mode(deployment.mode),
        model_name=deployment.name,
        source=revision.spec["model"]["source"],
        task=revision.spec["model"]["task"],
        pooling=revision.spec["model"].get("pooling"),  # which older revisions have not
        revision=version.revision,
        digest=version.digest,
        plan=ResolvedPlan.model_validate(revision.plan),
    )


def former_replicas(session: Session) -> list[FormerReplica]:
    """Those that have not ended, as far as their rows know."""
    rows = unfinished_replicas(session)
    revisions = revisions_of(session, {row.revision_id for row in rows})
    return [
        FormerReplica(
            replica_id=row.id,
            deployment_id=row.deployment_id,
            provisioner=revisions[row.revision_id].plan["provisioner"],
            pid=row.pid,
            process_start=row.process_start,
        )
        for row in rows
    ]
