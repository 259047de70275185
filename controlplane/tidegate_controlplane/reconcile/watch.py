"""What a rollout's stage was seen to do: between its row, its trial and the loop's memory."""

from __future__ import annotations

from tidegate.protocol.resources import ComparisonView, RolloutPhase
from tidegate.spec import RollbackSpec, RolloutSpec
from tidegate_controlplane.domain.reconcile import Step, Watched
from tidegate_controlplane.domain.rollout import RolloutStep, stages
from tidegate_controlplane.domain.verdict import judge
from tidegate_controlplane.reconcile.memory import StageMemory
from tidegate_controlplane.store.tables import Rollout

NOTE_EVERY_S = 5.0
"""Between two writings of a stage's figures, while nothing else changes."""


def stage_key(rollout: Rollout) -> str:
    """Of the present stage: its figures begin anew with it."""
    return f"{rollout.id}/{rollout.step}"


def phase_key(rollout: Rollout) -> str:
    """Of the present phase of the present stage: a bake begins anew with it."""
    return f"{stage_key(rollout)}/{rollout.phase}"


def is_watched(rollout: Rollout, now: RolloutStep) -> bool:
    """Whether the stage that the rollout is in now has answers to judge by."""
    within = now.step < len(stages(RolloutSpec.model_validate(rollout.options)))
    return within and now.phase in (RolloutPhase.SHIFTING, RolloutPhase.BAKING)


def watched_of(
    rollout: Rollout | None, comparison: ComparisonView | None, stage: StageMemory, now: float
) -> Watched:
    """What the next step is told of the present stage; `now` in monotonic seconds."""
    if rollout is None:
        return Watched()
    baked_s = stage.watched_s(phase_key(rollout), now)
    if comparison is None:
        return Watched(baked_s=baked_s)
    options = RolloutSpec.model_validate(rollout.options)
    fault = judge(options.rollback_on or RollbackSpec(), comparison)
    return Watched(
        baked_s=baked_s,
        compared=comparison.likeness.compared if comparison.likeness else 0,
        fault=(fault.reason, fault.message) if fault else None,
    )


def to_be_noted(rollout: Rollout | None, done: Step, stage: StageMemory, now: float) -> bool:
    """Whether the stage's figures should be written: when it ends, and every few seconds."""
    if rollout is None or done.rollout is None:
        return False
    moved = (done.rollout.phase, done.rollout.step) != (rollout.phase, rollout.step)
    if moved or now - stage.noted >= NOTE_EVERY_S:
        stage.noted = now
        return True
    return False
