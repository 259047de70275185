"""How a new revision takes over from the one that serves."""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from tidegate.spec.declaration import Declaration

BakeS = Annotated[float, Field(ge=0, le=86_400)]


class Strategy(StrEnum):
    """Who answers while a new revision comes."""

    ROLLING = "rolling"
    """The new revision starts beside the old, or one by one in its place when there is no room."""
    RECREATE = "recreate"
    """The old revision ends before the new one starts; requests are held meanwhile."""
    CANARY = "canary"
    """A share of the traffic at first, and more as it proves itself."""
    BLUE_GREEN = "blue_green"
    """A full new set, all traffic at once, and the old set kept ready to switch back."""
    SHADOW = "shadow"
    """Copies of requests, whose answers are compared and never returned; then rolling."""


class CanaryStep(Declaration):
    weight: Annotated[float, Field(gt=0, lt=100)]
    """Percent of the requests that the new revision answers."""
    bake_s: BakeS = 60.0
    """Seconds to watch it at this weight."""


class CanarySpec(Declaration):
    steps: Annotated[tuple[CanaryStep, ...], Field(min_length=1, max_length=20)] = (
        CanaryStep(weight=5),
        CanaryStep(weight=25),
        CanaryStep(weight=50),
    )
    """After the last one the new revision takes all."""

    @model_validator(mode="after")
    def _weights_rise(self) -> CanarySpec:
        for before, after in pairwise(self.steps):
            if after.weight <= before.weight:
                raise ValueError(
                    f"steps: the weight {after.weight:g} follows {before.weight:g}; "
                    "each step must weigh more than the one before"
                )
        return self


class ShadowSpec(Declaration):
    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Of the requests, how many are copied."""
    duration_s: BakeS = 300.0
    """Seconds to compare for, at least."""
    min_requests: Annotated[int, Field(ge=0, le=1_000_000)] = 20
    """Answers to compare, at least."""


class RollbackSpec(Declaration):
    """What sends the old revision back; null turns a reason off."""

    error_rate: Annotated[float, Field(ge=0, le=1)] | None = 0.05
    """How much more of its requests the new revision may fail than the old, as a share."""
    latency_ratio: Annotated[float, Field(gt=1, le=1000)] | None = 2.0
    """Its median time to first token, or per token, over that of the old revision."""
    drift: Annotated[float, Field(ge=0, le=1)] | None = None
    """How much of its greedy answers may differ from the old revision's, as a share of the text."""
    min_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    """Requests on each revision, or answers compared, before any of these is judged."""


class RolloutSpec(Declaration):
    strategy: Strategy = Strategy.ROLLING
    drain_timeout_s: Annotated[float, Field(ge=0, le=3600)] = 120.0
    """Seconds a replica may finish what it has before it is stopped."""
    canary: CanarySpec | None = None
    """Steps of a canary; 5, 25 and 50 percent for 60 seconds each when absent."""
    bake_s: BakeS | None = None
    """Seconds for which blue_green keeps the old set ready; 60 when absent."""
    shadow: ShadowSpec | None = None
    """How much a shadow copies and for how long."""
    rollback_on: RollbackSpec | None = None
    """When canary, blue_green and shadow go back by themselves; the defaults when absent."""

    @model_validator(mode="after")
    def _each_field_has_its_strategy(self) -> RolloutSpec:
        watched = (Strategy.CANARY, Strategy.BLUE_GREEN, Strategy.SHADOW)
        for field, strategies in (
            ("canary", (Strategy.CANARY,)),
            ("bake_s", (Strategy.BLUE_GREEN,)),
            ("shadow", (Strategy.SHADOW,)),
            ("rollback_on", watched),
        ):
            if getattr(self, field) is not None and self.strategy not in strategies:
                fitting = " or ".join(strategy.value for strategy in strategies)
                raise ValueError(
                    f"{field}: strategy {self.strategy.value!r} does not use it; "
                    f"remove it, or use strategy {fitting}"
                )
        return self
