"""Tidegate in Pulumi stacks: deployments and API keys as resources.

    >>> from tidegate_infra import ModelDeployment                      # doctest: +SKIP
    >>> ModelDeployment("smol", model="hf://org/name", mode="serverless")  # doctest: +SKIP

Names are loaded on first use, so that what needs no Pulumi does not load it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidegate_infra.resources.api_key import ApiKey
    from tidegate_infra.resources.model_deployment import ModelDeployment
    from tidegate_infra.resources.platform import Provider

__all__ = ["ApiKey", "ModelDeployment", "Provider"]

_ROOMS = {
    "ApiKey": "tidegate_infra.resources.api_key",
    "ModelDeployment": "tidegate_infra.resources.model_deployment",
    "Provider": "tidegate_infra.resources.platform",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'tidegate_infra' has no attribute {name!r}")
    try:
        room = import_module(_ROOMS[name])
    except ModuleNotFoundError as missing:
        raise ImportError(f"{missing.name} is missing: pip install 'tidegate[infra]'") from missing
    globals()[name] = value = getattr(room, name)
    return value
