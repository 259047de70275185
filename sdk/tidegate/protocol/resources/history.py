"""What happened to a deployment, and what was decided for it: both are only added to."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from tidegate.protocol.resources.base import Resource


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class EventView(Resource):
    id: str
    time: datetime
    object: str = Field(description="`deployment/<name>` or `replica/<id>`")
    severity: Severity
    reason: str = Field(description="a CamelCase word for machines")
    message: str


class DecisionView(Resource):
    """What the autoscaler decided, and all that it knew; recorded when the answer changes."""

    id: str
    time: datetime
    desired: int = Field(description="replicas that there should be")
    called_for: int = Field(description="replicas that the work alone called for")
    term: str = Field(description="the consideration that decided")
    sentence: str
    inputs: dict[str, Any] = Field(
        description="`bounds` and `signals`: the same ones give the same decision again"
    )
