"""What a batch needs next, from what is known of it. Pure.

validating   read the file twice: survey it, then make a row of each line → in_progress
             storage away for the whole window                            → failed
in_progress  wait for the lines; past its window, end them; all ended     → finalizing, expired
finalizing   write the files                                              → completed
cancelling   end the lines; all ended: write the files                    → cancelled
"""

from __future__ import annotations

from enum import Enum, auto

from tidegate.protocol.work import BatchStatus
from tidegate_controlplane.store.batches import Lines


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


def gives_up(status: BatchStatus, *, overdue: bool) -> bool:
    """Whether a batch fails whose step cannot use the storage; else the step is tried again.

    Once its lines have run, it waits: what they cost is paid, and their answers are kept.
    """
    return status is BatchStatus.VALIDATING and overdue


def next_step(status: BatchStatus, lines: Lines, *, overdue: bool) -> Step:
    """`overdue` says whether the completion window has passed."""
    waiting = lines.queued or lines.running
    match status:
        case BatchStatus.VALIDATING:
            return Step.VALIDATE
        case BatchStatus.IN_PROGRESS if waiting:
            return Step.END_LINES if overdue else Step.WAIT
        case BatchStatus.IN_PROGRESS:
            return Step.EXPIRE if lines.cut_off else Step.FINALIZE
        case BatchStatus.FINALIZING:
            return Step.COMPLETE
        case BatchStatus.CANCELLING:
            return Step.END_LINES if waiting else Step.CANCEL
    return Step.NOTHING
