"""Whose turn it is: how a claim's room is shared between the projects that wait. Pure.

A project with a hundred thousand requests and one with a single request each take a turn, so the
single one waits for one round and not for the hundred thousand. Within a project the earliest
deadline goes first; that order is the index's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Turns:
    """The project that was last given a place; the next round begins after it, by id.

    One for each kind of work, since lines of batches take places only after what runs alone.
    """

    alone: str = ""
    lines: str = ""


def even_shares(projects: Sequence[str], room: int) -> list[tuple[str, int]]:
    """How many of `room` places each project is offered, those first in turn the odd ones.

    Every place is offered, and projects beyond `room` get none this time.
    """
    chosen = projects[:room]
    if not chosen:
        return []
    each, odd = divmod(room, len(chosen))
    return [(project, each + (place < odd)) for place, project in enumerate(chosen)]
