"""Every route of the platform but those that the application brings itself."""

from __future__ import annotations

from tidegate_controlplane.api import adapters as adapter_routes
from tidegate_controlplane.api import deployments as deployment_routes
from tidegate_controlplane.api import encryption as encryption_routes
from tidegate_controlplane.api import metrics as metrics_routes
from tidegate_controlplane.api import observation as observation_routes
from tidegate_controlplane.api import offers as offer_routes
from tidegate_controlplane.api import platform as platform_routes
from tidegate_controlplane.api import profiles as profile_routes
from tidegate_controlplane.api import rollouts as rollout_routes
from tidegate_controlplane.api import webhooks as webhook_routes
from tidegate_controlplane.gateway import routes as gateway_routes
from tidegate_controlplane.work import routes as work_routes

HANDLERS = [
    *gateway_routes.HANDLERS,
    *work_routes.HANDLERS,
    *deployment_routes.HANDLERS,
    *adapter_routes.HANDLERS,
    *observation_routes.HANDLERS,
    *rollout_routes.HANDLERS,
    *profile_routes.HANDLERS,
    *webhook_routes.HANDLERS,
    *platform_routes.HANDLERS,
    *offer_routes.HANDLERS,
    *encryption_routes.HANDLERS,
    *metrics_routes.HANDLERS,
]
