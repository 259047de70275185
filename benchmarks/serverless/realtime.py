"""Running before everything else on a machine that is not idle."""

from __future__ import annotations

import contextlib
import os

PRIORITY = 50


def run_first() -> None:
    """Run this process before ordinary ones, where the system lets it."""
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
