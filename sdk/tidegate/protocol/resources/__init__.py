"""The control plane's resources under `/api/v1`: what is stored, as its readers see it.

Times are ISO 8601 in UTC; durations carry their unit in the name. Errors are RFC 9457 problems.
"""

from tidegate.protocol.resources.api_keys import ApiKeyCreated, ApiKeyRequest, ApiKeyView, KeyRole
from tidegate.protocol.resources.base import Page, Request, Resource
from tidegate.protocol.resources.deployments import (
    AdapterSource,
    Condition,
    DeploymentPhase,
    DeploymentView,
    ReplicaCounts,
    RevisionView,
    ScaleRequest,
)
from tidegate.protocol.resources.encryption import EncryptionPass, EncryptionView, KeyUse
from tidegate.protocol.resources.history import DecisionView, EventView, Severity
from tidegate.protocol.resources.models import ModelFacts, ModelVersionView, ModelView
from tidegate.protocol.resources.offers import (
    ConsideredOffer,
    OfferRefresh,
    OfferRefreshed,
    PlannedOffer,
    Region,
)
from tidegate.protocol.resources.plans import (
    ChangeView,
    PlannedDraft,
    PlannedHeads,
    PlannedOffload,
    PlanView,
    ResolvedPlan,
)
from tidegate.protocol.resources.platform import UsageView, VersionView
from tidegate.protocol.resources.problems import Problem, ProblemIssue
from tidegate.protocol.resources.replicas import LogLine, LogPage, ReplicaPhase, ReplicaView
from tidegate.protocol.resources.rollouts import (
    ComparisonView,
    LikenessView,
    OutcomeView,
    RollbackRequest,
    RolloutPhase,
    RolloutView,
)

__all__ = [
    "AdapterSource",
    "ApiKeyCreated",
    "ApiKeyRequest",
    "ApiKeyView",
    "ChangeView",
    "ComparisonView",
    "Condition",
    "ConsideredOffer",
    "DecisionView",
    "DeploymentPhase",
    "DeploymentView",
    "EncryptionPass",
    "EncryptionView",
    "EventView",
    "KeyRole",
    "KeyUse",
    "LikenessView",
    "LogLine",
    "LogPage",
    "ModelFacts",
    "ModelVersionView",
    "ModelView",
    "OfferRefresh",
    "OfferRefreshed",
    "OutcomeView",
    "Page",
    "PlanView",
    "PlannedDraft",
    "PlannedHeads",
    "PlannedOffer",
    "PlannedOffload",
    "Problem",
    "ProblemIssue",
    "Region",
    "ReplicaCounts",
    "ReplicaPhase",
    "ReplicaView",
    "Request",
    "ResolvedPlan",
    "Resource",
    "RevisionView",
    "RollbackRequest",
    "RolloutPhase",
    "RolloutView",
    "ScaleRequest",
    "Severity",
    "UsageView",
    "VersionView",
]
