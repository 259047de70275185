"""One step of a rollout: who answers, how many replicas each revision needs, and what comes next.

Level-triggered: the answer depends on where the rollout stands and on what is observed, never on
how it came there. A pass that is repeated, or a restart, only starts a bake anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from tidegate.protocol.resources import RolloutPhase
from tidegate.spec import CanarySpec, RolloutSpec, ShadowSpec, Strategy

R = RolloutPhase
Requested = Literal["promote", "abort"] | None
BLUE_GREEN_BAKE_S = 60.0
DRIFT_SHARE = 0.1
"""Of a canary's requests, how many are copied when its drift is judged."""
OPEN = frozenset({R.PREFLIGHT, R.SHIFTING, R.BAKING, R.ROLLING_BACK})


@dataclass(frozen=True)
class Stage:
    """A stretch of a rollout that is watched before the next one begins."""

    share: float
    """Of the requests, how many the new revision answers: 0 to 1."""
    bake_s: float
    full: bool = False
    """The new revision has as many replicas as the whole traffic calls for."""
    copied: float = 0.0
    """Of the former revision's requests, how many are copied to the new one."""
    min_compared: int = 0


def stages(spec: RolloutSpec) -> tuple[Stage, ...]:
    """What is watched before the new revision takes all; nothing for rolling and recreate."""
    match spec.strategy:
        case Strategy.CANARY:
            drift = spec.rollback_on is not None and spec.rollback_on.drift is not None
            return tuple(
                Stage(step.weight / 100, step.bake_s, copied=DRIFT_SHARE if drift else 0.0)
                for step in (spec.canary or CanarySpec()).steps
            )
        case Strategy.BLUE_GREEN:
            bake_s = BLUE_GREEN_BAKE_S if spec.bake_s is None else spec.bake_s
            return (Stage(1.0, bake_s, full=True),)
        case Strategy.SHADOW:
            shadow = spec.shadow or ShadowSpec()
            return (
                Stage(
                    0.0,
                    shadow.duration_s,
                    copied=shadow.share,
                    min_compared=shadow.min_requests,
                ),
            )
    return ()


@dataclass(frozen=True)
class RolloutFact:
    """A rollout's row."""

    from_id: str
    """The revision that serves until this ends."""
    to_id: str
    strategy: Strategy
    stages: tuple[Stage, ...]
    phase: RolloutPhase = R.PREFLIGHT
    step: int = 0
    requested: Requested = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Side:
    """The replicas of one revision."""

    live: int = 0
    ready: int = 0
    lost: str | None = None
    """Why starting another one will not help; None while there is hope."""


@dataclass(frozen=True)
class Observed:
    """What a rollout is decided on."""

    stable: Side
    new: Side
    desired: int
    fits: int
    """Replicas of the new revision that there is room for beside those that live."""
    shortage: str = ""
    """Why no more fit."""
    settling: bool = False
    """Whether replicas still drain, so that there will be more room in a moment."""
    baked_s: float = 0.0
    """Seconds since the present stage began to be watched."""
    compared: int = 0
    """Copied answers that were compared in this stage."""
    fault: tuple[str, str] | None = None
    """What the watch over this stage found: a CamelCase reason and a sentence."""


@dataclass(frozen=True)
class RolloutStep:
    """Where the rollout stands now, and what follows from it."""

    phase: RolloutPhase
    step: int
    reason: str
    message: str
    wanted: Mapping[str, int]
    """Replicas by revision id; those of other revisions stay until these carry the traffic."""
    weights: Mapping[str, float]
    """Shares of the two revisions in the requests; they sum to 1."""
    copied: float = 0.0

    @property
    def is_open(self) -> bool:
        return self.phase in OPEN


def advance(rollout: RolloutFact, seen: Observed) -> RolloutStep:
    """The rollout after this pass."""
    now = _next(rollout, seen)
    stage = _stage(now)
    watched = stage is not None and now.phase in (R.SHIFTING, R.BAKING, R.PREFLIGHT)
    return RolloutStep(
        phase=now.phase,
        step=now.step,
        reason=now.reason,
        message=now.message,
        wanted=_wanted(now, seen),
        weights=_weights(now, seen),
        copied=stage.copied if stage and watched and now.phase is R.BAKING else 0.0,
    )


# --- what comes next ------------------------------------------------------------------------------


def _next(rollout: RolloutFact, seen: Observed) -> RolloutFact:
    if rollout.phase is R.ROLLING_BACK:
        return _going_back(rollout, seen)
    if why := _must_go_back(rollout, seen):
        return _going_back(_at(rollout, R.ROLLING_BACK, *why), seen)
    if rollout.requested == "promote" or _nothing_to_protect(seen):
        rollout = replace(rollout, step=len(rollout.stages))
    if rollout.phase is R.PREFLIGHT and _stage(rollout) and seen.settling:
        return _at(rollout, R.PREFLIGHT, "Preflight", "waiting for replicas that still drain")
    return _going_on(rollout, seen)


def _must_go_back(rollout: RolloutFact, seen: Observed) -> tuple[str, str] | None:
    if rollout.requested == "abort":
        return "Aborted", "aborted on request"
    if seen.new.lost and not seen.stable.lost:
        return "RevisionFailing", f"the new revision does not start: {seen.new.lost}"
    if seen.fault and rollout.requested is None and _stage(rollout):
        return seen.fault
    stage = _stage(rollout)
    if stage and rollout.phase is R.PREFLIGHT and not seen.settling:
        missing = _new_replicas(stage, seen) - seen.new.live
        if missing > seen.fits:
            return "NoRoom", f"{missing} more replicas are needed, {seen.fits} fit: {seen.shortage}"
    return None


def _nothing_to_protect(seen: Observed) -> bool:
    """Whether the former revision cannot answer anyway."""
    return seen.stable.ready == 0 and seen.stable.lost is not None


def _going_on(rollout: RolloutFact, seen: Observed) -> RolloutFact:
    stage = _stage(rollout)
    if stage is None:
        if seen.new.ready >= seen.desired:
            return _at(rollout, R.PROMOTED, "Promoted", "the new revision serves")
        return _at(rollout, R.SHIFTING, *_taking_all(rollout))
    name = f"step {rollout.step + 1} of {len(rollout.stages)}"
    possible = min(_new_replicas(stage, seen), seen.new.live + seen.fits)
    if rollout.phase is R.PREFLIGHT or seen.new.ready < max(1, possible):
        message = f"{name}: replicas of the new revision are starting"
        return _at(rollout, R.SHIFTING, "Shifting", message)
    done = rollout.phase is R.BAKING and seen.baked_s >= stage.bake_s
    if not done or seen.compared < stage.min_compared:
        return _at(rollout, R.BAKING, "Baking", f"{name}: {_watched(stage)}")
    return _going_on(replace(rollout, phase=R.SHIFTING, step=rollout.step + 1), seen)


def _going_back(rollout: RolloutFact, seen: Observed) -> RolloutFact:
    """Until the former revision carries the traffic and no replica of the new one is left."""
    carried = seen.stable.ready >= seen.desired or seen.stable.lost
    if carried and not seen.new.live:
        return replace(rollout, phase=R.ROLLED_BACK)
    return rollout


def _taking_all(rollout: RolloutFact) -> tuple[str, str]:
    if rollout.strategy is Strategy.RECREATE:
        return "Recreating", "the former revision drains before the new one starts"
    return "RollingOut", "the new revision is starting; the former one serves"


def _watched(stage: Stage) -> str:
    if stage.copied and not stage.share:
        return (
            f"{stage.copied:.0%} of the requests are copied for {stage.bake_s:g} s, "
            f"and until {stage.min_compared} answers are compared"
        )
    return f"the new revision answers {stage.share:.0%} of the requests for {stage.bake_s:g} s"


def _at(rollout: RolloutFact, phase: RolloutPhase, reason: str, message: str) -> RolloutFact:
    return replace(rollout, phase=phase, reason=reason, message=message)


# --- what follows from it -------------------------------------------------------------------------


def _stage(rollout: RolloutFact) -> Stage | None:
    """The present stage; None when the new revision takes all."""
    return rollout.stages[rollout.step] if rollout.step < len(rollout.stages) else None


def _new_replicas(stage: Stage, seen: Observed) -> int:
    """At least one, also of an idle deployment: what is not there cannot be watched."""
    return max(1, seen.desired if stage.full else math.ceil(stage.share * seen.desired))


def _wanted(rollout: RolloutFact, seen: Observed) -> dict[str, int]:
    """A revision that is not named stays until the named ones carry the traffic."""
    match rollout.phase, _stage(rollout):
        case ((R.ROLLING_BACK | R.ROLLED_BACK), _):
            back = {rollout.from_id: seen.desired}
            return {**back, rollout.to_id: 0} if seen.stable.ready and rollout.stages else back
        case R.PROMOTED, _:
            return {rollout.to_id: seen.desired}
        case R.PREFLIGHT, _:
            return {rollout.from_id: max(1, seen.desired)}
        case _, None:
            return {rollout.to_id: seen.desired}
        case _, stage:
            new = _new_replicas(stage, seen)
            return {rollout.from_id: max(1, seen.desired), rollout.to_id: new}


def _weights(rollout: RolloutFact, seen: Observed) -> dict[str, float]:
    """No share for a revision without a ready replica while the other has one."""
    share = _share(rollout, seen)
    if not seen.new.ready:
        share = 0.0
    elif not seen.stable.ready:
        share = 1.0
    return {rollout.from_id: 1.0 - share, rollout.to_id: share}


def _share(rollout: RolloutFact, seen: Observed) -> float:
    reached = rollout.stages[: rollout.step + (rollout.phase is R.BAKING)]
    watched = reached[-1].share if reached else 0.0
    match rollout.phase:
        case R.PROMOTED:
            return 1.0
        case R.PREFLIGHT:
            return 0.0
        case R.ROLLING_BACK | R.ROLLED_BACK:
            return 0.0 if rollout.stages else _by_number(seen)
        case _:
            return max(watched, 0.0 if _stage(rollout) else _by_number(seen))


def _by_number(seen: Observed) -> float:
    """The new replicas' part, once the former ones are too few to carry the traffic alone."""
    if seen.stable.ready >= seen.desired:
        return 0.0
    return seen.new.ready / max(1, seen.new.ready + seen.stable.ready)
