"""Where a step goes, in numbers."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

import numpy as np

from tidegate.protocol.profile import PhaseTimes, ProfileSummary
from tidegate_runtime.profiling.phases import Phase
from tidegate_runtime.profiling.recorder import Recording, Span, Step

_NS = 1e-9


def summarize(recording: Recording, replica_id: str) -> ProfileSummary:
    """The share of each phase, over the steps that were not slowed by recording their operators.

    Where there are no others, over those.
    """
    spans, steps = _measured(recording)
    durations: dict[Phase, list[float]] = defaultdict(list)
    for span in spans:
        if span.phase is not Phase.PROFILING:
            durations[span.phase].append((span.end_ns - span.start_ns) * _NS)
    whole_s = sum(map(sum, durations.values()))
    return ProfileSummary(
        replica_id=replica_id,
        seconds=whole_s,
        steps=len(steps),
        operator_steps=recording.operator_steps,
        rows_per_step=fmean(step.rows for step in steps) if steps else 0.0,
        tokens_per_step=fmean(step.tokens for step in steps) if steps else 0.0,
        phases=[_times(phase, durations[phase], whole_s) for phase in Phase if phase in durations],
    )


def _measured(recording: Recording) -> tuple[list[Span], list[Step]]:
    slowed = recording.operator_steps
    if not 0 < slowed < len(recording.steps):
        return recording.spans, recording.steps
    from_ns = recording.steps[slowed - 1].spans[-1].end_ns
    return [s for s in recording.spans if s.start_ns >= from_ns], recording.steps[slowed:]


def _times(phase: Phase, seconds: list[float], whole_s: float) -> PhaseTimes:
    p50, p99 = np.percentile(seconds, (50, 99))
    return PhaseTimes(
        phase=phase,
        share=sum(seconds) / whole_s if whole_s else 0.0,
        count=len(seconds),
        mean_s=fmean(seconds),
        p50_s=float(p50),
        p99_s=float(p99),
    )
