"""What a batch needs next, from what is known of it. Pure.

validating   read the file twice: survey it, then make a row of each line → in_progress
in_progress  wait for the lines; past its window, end them; all ended     → finalizing, expired
finalizing   write the files                                              → completed
cancelling   end the lines; all ended: write the files                    → cancelled
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from tidegate.protocol.work import BatchStatus, InvocationState


class Step(Enum):
    VALIDATE = auto()
    WAIT = auto()
    END_LINES = auto()
    FINALIZE = auto()
    """Say that the lines have ended, and that the files are being written."""
    COMPLETE = auto()
    EXPIRE = auto()
    CANCEL = auto()
    NOTHING = auto()


Lines = Mapping[InvocationState, int]
"""How many lines are in each state."""


def next_step(status: BatchStatus, lines: Lines, *, overdue: bool) -> Step:
    """`overdue` says whether the completion window has passed."""
    waiting = any(number for state, number in lines.items() if not state.is_final)
    match status:
        case BatchStatus.VALIDATING:
            return Step.VALIDATE
        case BatchStatus.IN_PROGRESS if waiting:
            return Step.END_LINES if overdue else Step.WAIT
        case BatchStatus.IN_PROGRESS:
            return Step.EXPIRE if _was_cut_off(lines) else Step.FINALIZE
        case BatchStatus.FINALIZING:
            return Step.COMPLETE
        case BatchStatus.CANCELLING:
            return Step.END_LINES if waiting else Step.CANCEL
    return Step.NOTHING


def _was_cut_off(lines: Lines) -> bool:
    """Whether the window ended a line: lines of a batch are canceled for no other reason."""
    return any(lines.get(state) for state in (InvocationState.CANCELED, InvocationState.EXPIRED))
