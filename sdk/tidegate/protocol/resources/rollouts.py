"""How one revision takes over from another, and how the two compare."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from tidegate.protocol.resources.base import Request, Resource
from tidegate.spec import Strategy


class RolloutPhase(StrEnum):
    PREFLIGHT = "preflight"
    """Is there room for it at all?"""
    SHIFTING = "shifting"
    """Replicas start or end for the present step."""
    BAKING = "baking"
    """The present step is watched."""
    PROMOTED = "promoted"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"


class OutcomeView(Resource):
    """How one revision has answered since the present step began."""

    answered: int = 0
    failed: int = Field(default=0, description="5xx answers and cut streams")
    streams: int = Field(default=0, description="answers with a time to first token")
    first_token_s: float | None = Field(default=None, description="median of these")
    timed: int = Field(default=0, description="answers with a time per token")
    per_token_s: float | None = Field(default=None, description="median of these")


class LikenessView(Resource):
    """How the new revision's answers to copied requests compare with those that were returned."""

    compared: int = 0
    greedy: int = Field(default=0, description="of them, requests with temperature 0")
    agreement: float | None = Field(
        default=None, description="greedy: mean share of the text that is equal from its start on"
    )
    same_finish: float | None = Field(default=None, description="share with an equal finish reason")
    length_ratio: float | None = Field(default=None, description="mean length of new over old")


class ComparisonView(Resource):
    """The former revision beside the new one."""

    stable: OutcomeView = OutcomeView()
    new: OutcomeView = OutcomeView()
    likeness: LikenessView | None = None


class RolloutView(Resource):
    id: str
    deployment: str
    strategy: Strategy
    phase: RolloutPhase
    step: int = Field(description="counted from 0; `steps` when the new revision takes all")
    steps: int
    from_revision: int = Field(description="the number of the revision that serves until the end")
    to_revision: int
    weight: float = Field(description="percent of the requests that the new revision answers")
    requested: Literal["promote", "abort"] | None = None
    reason: str = Field(description="a CamelCase word for machines")
    message: str
    comparison: ComparisonView | None = None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None = None


class RollbackRequest(Request):
    """Go back to a former revision; the one before the present when `to` is absent."""

    to: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
