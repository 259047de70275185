"""What happens outside a step: starts that fail, former replicas, what is told of the places."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime

from sqlmodel import Session

from tidegate.protocol.resources import ReplicaPhase, Severity
from tidegate_controlplane.provision.base import Notice
from tidegate_controlplane.store.deployments import add_event, change_replica, unfinished_replicas
from tidegate_controlplane.store.tables import Deployment, Replica

logger = logging.getLogger("tidegate.reconcile")


def write_start_failure(
    session: Session, deployment: Deployment, replica: Replica, why: str, now: datetime
) -> None:
    """The unit of work when a process could not be started at all."""
    change_replica(
        session,
        replica,
        now,
        phase=ReplicaPhase.FAILED.value,
        reason="StartFailed",
        message=why,
        finished_at=now,
    )
    add_event(
        session,
        deployment,
        now,
        "StartFailed",
        why,
        severity=Severity.ERROR,
        replica_id=replica.id,
    )


def close_former(session: Session, now: datetime) -> None:
    """The unit of work at a start: no replica of an earlier process is adopted."""
    why = "its control plane ended; a new one starts its own"
    for replica in unfinished_replicas(session):
        change_replica(
            session,
            replica,
            now,
            phase=ReplicaPhase.TERMINATED.value,
            reason="ControlPlaneRestarted",
            message=why,
            finished_at=now,
        )
        deployment = session.get_one(Deployment, replica.deployment_id)
        add_event(session, deployment, now, "ControlPlaneRestarted", why, replica_id=replica.id)


def write_notices(session: Session, notices: Iterable[Notice], now: datetime) -> None:
    """The unit of work that makes events of what happened at the places."""
    for notice in notices:
        deployment = session.get(Deployment, notice.deployment_id)
        if deployment is None:
            logger.warning("of deployment %s, unknown: %s", notice.deployment_id, notice.message)
            continue
        add_event(
            session,
            deployment,
            now,
            notice.reason,
            notice.message,
            severity=notice.severity,
            replica_id=notice.replica_id,
        )
