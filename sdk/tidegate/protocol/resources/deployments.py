"""A deployment, its revisions, and what may be asked of it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tidegate.protocol.resources.base import Request, Resource
from tidegate.protocol.resources.plans import ResolvedPlan
from tidegate.spec import DeploymentSpec, Mode


class DeploymentPhase(StrEnum):
    PENDING = "pending"
    PLANNING = "planning"
    PROVISIONING = "provisioning"
    READY = "ready"
    UPDATING = "updating"
    IDLE = "idle"
    WAKING = "waking"
    DEGRADED = "degraded"
    PAUSED = "paused"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"


class Condition(Resource):
    type: str
    status: bool
    reason: str
    message: str
    since: datetime


class ReplicaCounts(Resource):
    desired: int = 0
    starting: int = 0
    ready: int = 0
    draining: int = 0


class DeploymentView(Resource):
    id: str
    name: str
    mode: Mode
    phase: DeploymentPhase
    message: str = Field(default="", description="one sentence on where it stands")
    spec: DeploymentSpec
    generation: int = Field(description="rises by one with each changed declaration")
    observed_generation: int = Field(description="the generation that the replicas now serve")
    revision: str | None = Field(default=None, description="the revision that now serves")
    replicas: ReplicaCounts
    conditions: list[Condition] = Field(default=[])
    created_at: datetime
    updated_at: datetime


class RevisionView(Resource):
    id: str
    number: int
    generation: int
    model_version: str
    plan: ResolvedPlan
    created_at: datetime


class ScaleRequest(Request):
    """Change the replica bounds of a deployment; an absent bound stays as it is."""

    min_replicas: Annotated[int, Field(ge=0, le=1000)] | None = None
    max_replicas: Annotated[int, Field(ge=1, le=1000)] | None = None


class AdapterSource(Request):
    """Where an adapter comes from."""

    source: Annotated[str, Field(min_length=1, max_length=2048)]
