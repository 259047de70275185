"""Whether a new revision does worse than the former one, by what both were seen to do."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tidegate.protocol.resources import ComparisonView, OutcomeView
from tidegate.spec import RollbackSpec

SIGNIFICANCE = 0.01
"""The chance of going back for nothing, at one look: small, since each pass takes a look."""


@dataclass(frozen=True)
class Fault:
    """Why the new revision should go: a CamelCase reason and a sentence with the figures."""

    reason: str
    message: str


def judge(bounds: RollbackSpec, seen: ComparisonView) -> Fault | None:
    """The first bound that the new revision breaks; None while there is too little to judge by."""
    old, new = seen.stable, seen.new
    first = (old.streams, old.first_token_s), (new.streams, new.first_token_s)
    per_token = (old.timed, old.per_token_s), (new.timed, new.per_token_s)
    return (
        _errors(bounds, old, new)
        or _latency(bounds, "time to first token", *first)
        or _latency(bounds, "time per token", *per_token)
        or _drift(bounds, seen)
    )


def chance(failed_new: int, total_new: int, failed_old: int, total_old: int) -> float:
    """The probability of `failed_new` or more failures when both revisions fail alike.

    Fisher's exact test, one-sided: the upper tail of the hypergeometric distribution (R. A. Fisher,
    "The Logic of Inductive Inference", 1935).
    """
    failed, total = failed_new + failed_old, total_new + total_old
    most = min(failed, total_new)
    logs = [
        _log_choose(failed, k) + _log_choose(total - failed, total_new - k)
        for k in range(failed_new, most + 1)
    ]
    return min(1.0, sum(math.exp(log - _log_choose(total, total_new)) for log in logs))


def _log_choose(n: int, k: int) -> float:
    if not 0 <= k <= n:
        return -math.inf
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _errors(bounds: RollbackSpec, stable: OutcomeView, new: OutcomeView) -> Fault | None:
    """Worse by more than the bound, and hardly by chance."""
    total = new.answered + new.failed
    if bounds.error_rate is None or total < bounds.min_requests:
        return None
    total_old = stable.answered + stable.failed
    rate, rate_old = new.failed / total, stable.failed / max(1, total_old)
    if rate - rate_old <= bounds.error_rate:
        return None
    if total_old and chance(new.failed, total, stable.failed, total_old) > SIGNIFICANCE:
        return None
    return Fault(
        "ErrorRate",
        f"the new revision failed {new.failed} of {total} requests ({rate:.1%}), the former one "
        f"{stable.failed} of {total_old} ({rate_old:.1%}); {bounds.error_rate:.1%} more is allowed",
    )


def _latency(
    bounds: RollbackSpec, what: str, old: tuple[int, float | None], new: tuple[int, float | None]
) -> Fault | None:
    """By the medians of two numbers of samples."""
    (number_old, median_old), (number, median) = old, new
    if bounds.latency_ratio is None or median_old is None or median is None:
        return None
    if min(number_old, number) < bounds.min_requests or median <= median_old * bounds.latency_ratio:
        return None
    return Fault(
        "Latency",
        f"the new revision's median {what} is {median * 1000:.1f} ms, {median / median_old:.1f} "
        f"times the former one's {median_old * 1000:.1f} ms; {bounds.latency_ratio:g} times is "
        "allowed",
    )


def _drift(bounds: RollbackSpec, seen: ComparisonView) -> Fault | None:
    likeness = seen.likeness
    if bounds.drift is None or likeness is None or likeness.agreement is None:
        return None
    if likeness.greedy < bounds.min_requests or 1.0 - likeness.agreement <= bounds.drift:
        return None
    return Fault(
        "Drift",
        f"over {likeness.greedy} greedy answers {1.0 - likeness.agreement:.1%} of the text "
        f"differs from the former revision's; {bounds.drift:.1%} is allowed",
    )
