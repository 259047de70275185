"""What the engine's thread may be at."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Phase(StrEnum):
    """The thread is in one of them at any moment."""

    WAITING = "waiting"
    """For work: nothing runs, and nothing could."""
    INTAKE = "intake"
    """Newcomers are taken in, aborted ones are let go."""
    DRAFTING = "drafting"
    """Next tokens are guessed."""
    SCHEDULING = "scheduling"
    FORWARD = "forward"
    CHOOSING = "choosing"
    EMITTING = "emitting"
    """Tokens become text, and are handed to those who wait for them."""
    PROFILING = "profiling"
    """The profile's own work, which is in no summary."""


OF_STEP = frozenset(
    {Phase.DRAFTING, Phase.SCHEDULING, Phase.FORWARD, Phase.CHOOSING, Phase.EMITTING}
)


class Phases:
    """Is told where the engine's thread is. This one forgets it at once."""

    def enter(self, phase: Phase) -> None:
        """The former phase has ended, this one begins."""

    def run(self, tokens: Mapping[Any, int]) -> None:
        """The step runs so many tokens of each sequence."""


UNWATCHED = Phases()
