"""Every table. Rows hold facts; what they may become is in `domain.states`.

Times are UTC (`datetime` with zone). A `version` column is raised by each change and compared
before it, so a writer that read an older row changes nothing.

All are declared once one of them is imported: foreign keys and migrations find tables by name.
"""

from tidegate_controlplane.store.tables.batches import Batch, File
from tidegate_controlplane.store.tables.deployments import Deployment, Replica, Revision
from tidegate_controlplane.store.tables.encryption import EncryptionKey
from tidegate_controlplane.store.tables.history import Decision, Event
from tidegate_controlplane.store.tables.invocations import CLAIMABLE, DELAYED, FAR, Invocation
from tidegate_controlplane.store.tables.models import Model, ModelVersion
from tidegate_controlplane.store.tables.offers import OfferRow
from tidegate_controlplane.store.tables.planes import (
    ControlPlane,
    Leader,
    Publication,
    SharedCounter,
)
from tidegate_controlplane.store.tables.projects import DEFAULT_PROJECT, ApiKey, Project
from tidegate_controlplane.store.tables.rollouts import Rollout
from tidegate_controlplane.store.tables.usage import UsageRecord
from tidegate_controlplane.store.tables.webhooks import Webhook, WebhookDelivery

__all__ = [
    "CLAIMABLE",
    "DEFAULT_PROJECT",
    "DELAYED",
    "FAR",
    "ApiKey",
    "Batch",
    "ControlPlane",
    "Decision",
    "Deployment",
    "EncryptionKey",
    "Event",
    "File",
    "Invocation",
    "Leader",
    "Model",
    "ModelVersion",
    "OfferRow",
    "Project",
    "Publication",
    "Replica",
    "Revision",
    "Rollout",
    "SharedCounter",
    "UsageRecord",
    "Webhook",
    "WebhookDelivery",
]
