"""What runs when nobody asks may cost so much a month, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tidegate_infra.policy.at_rest import Prices, at_rest
from tidegate_infra.policy.declared import Declared
from tidegate_infra.policy.finding import Finding


def spend_findings(
    resources: Sequence[Declared], max_monthly_usd: float, prices: Prices
) -> Iterator[Finding]:
    """A sum over the limit, and whatever has no price, since it could be the most of all."""
    total = 0.0
    for running in at_rest(resources):
        cost = running.monthly_usd(prices)
        if cost is None:
            said = f"no price is known for {running.unit}; give one, or set no limit"
            yield Finding("spend", str(running.resource), said)
        else:
            total += cost
    if total > max_monthly_usd:
        said = (
            f"at rest it costs {total:.2f} USD a month, over the limit of {max_monthly_usd:.2f}; "
            "lower the minimum capacity, or raise the limit"
        )
        yield Finding("spend", "the stack", said)
