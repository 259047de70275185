"""Which revision the next request goes to, when a rollout gives each a share.

Smooth weighted round robin, as in nginx (`ngx_http_upstream_round_robin.c`): every draw adds to
each revision's credit its weight and takes the sum of the weights from the one that was drawn. No
chance is involved: of any N requests a share of w gets N·w, give or take one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

CATCH_UP = 10.0
"""Times the sum of the weights: as much credit as a revision without room can save up."""


def draw(
    earned: Mapping[str, float], weights: Mapping[str, float], able: Collection[str]
) -> tuple[str, dict[str, float]]:
    """The revision that is next, of those `able` to take a request, and the credits after it.

    A revision that has no room keeps its credit and catches up later, within bounds. Raises
    ValueError when none is able.
    """
    total = sum(weights.values())
    grown = {name: earned.get(name, 0.0) + weight for name, weight in weights.items()}
    drawn = max(sorted(able), key=lambda name: grown.get(name, 0.0))
    if drawn in grown:
        grown[drawn] -= total
    most = CATCH_UP * total
    return drawn, {name: max(-most, min(most, credit)) for name, credit in grown.items()}
