"""What torch does, as its own profiler records it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.autograd.profiler import profile

from tidegate_runtime.profiling.stray_lines import stray_lines_logged

_KEPT = frozenset({"X", "M", "s", "f"})
"""Spans, names, and the arrows from a launch to what it launched."""


class TorchOperators:
    """Implements `OperatorRecorder`. The profiler of a thread sees that thread only, and the GPU.

    `torch.profiler.profile` is the same recorder, but its start brings in parts of torch that took
    seconds, in which no step would run.
    """

    def __init__(self) -> None:
        # torch has no types for what is called on it.
        self._profile: Any = profile(use_device="cuda" if torch.cuda.is_available() else None)

    def start(self) -> None:
        """Record this thread."""
        with stray_lines_logged():
            self._profile.__enter__()

    def stop(self) -> None:
        """Record no more; in the same thread."""
        with stray_lines_logged():
            self._profile.__exit__(None, None, None)

    def events(self, origin_ns: int) -> list[dict[str, Any]]:
        """What was recorded; from any thread."""
        with tempfile.TemporaryDirectory(prefix="tidegate-profile-") as directory:
            path = Path(directory, "trace.json")
            self._profile.export_chrome_trace(str(path))
            told = json.loads(path.read_bytes())
        shift_us = (told.get("baseTimeNanoseconds", 0) - origin_ns) / 1000
        return [
            {**event, "ts": event.get("ts", 0) + shift_us} if event["ph"] != "M" else event
            for event in told["traceEvents"]
            if event["ph"] in _KEPT and event.get("cat") != "Trace"
        ]
