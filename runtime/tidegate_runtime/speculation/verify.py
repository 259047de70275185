"""Which guesses stand, so that nothing but the speed changes."""

from __future__ import annotations

from collections.abc import Sequence as Many


def verified(chosen: Many[int], drafts: Many[int]) -> list[int]:
    """The tokens that a sequence gets from one step: those up to the first that was not guessed.

    `chosen[i]` was drawn from the model's distribution p after `drafts[:i]`, as if there were no
    speculation at all. It is the draft with probability p(draft), and otherwise follows p without
    the draft, renormalised: which is the acceptance rule of Leviathan et al. 2023 and Chen et al.
    2023 for a guess that is one point. Since every token has a random number of its own, a seed
    even gives the same tokens with speculation as without, not only the same distribution.

    `chosen` may be shorter than the drafts and one; never empty.
    """
    for place, draft in enumerate(drafts[: len(chosen)]):
        if chosen[place] != draft:
            return list(chosen[: place + 1])
    return list(chosen)
