"""The conditions of a deployment that follow from a step."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tidegate.protocol.resources import DeploymentPhase
from tidegate_controlplane.deployments.conditions import (
    CURRENT,
    READY,
    ROLLED_BACK,
    condition,
    replaced,
)
from tidegate_controlplane.domain.reconcile import Step
from tidegate_controlplane.store.tables import Deployment

HEALTHY = (
    DeploymentPhase.READY,
    DeploymentPhase.UPDATING,
    DeploymentPhase.IDLE,
    DeploymentPhase.WAKING,
)


def conditions_after(row: Deployment, step: Step, now: datetime) -> list[dict[str, Any]]:
    """Those of the row once the step is done."""
    healthy = step.phase in HEALTHY
    ready = condition(READY, step.reason, step.message, now, status=healthy)
    reached = step.serving_revision_id == row.revision_id
    reason, message = ("Serving", step.message) if reached else _why_not_current(step)
    current = condition(CURRENT, reason, message, now, status=reached)
    return replaced(replaced(row.conditions, ready), current)


def _why_not_current(step: Step) -> tuple[str, str]:
    if step.rollout and step.rollout.is_open:
        return "RollingOut", step.rollout.message
    return ROLLED_BACK, step.rollout.message if step.rollout else "its rollout has ended"
