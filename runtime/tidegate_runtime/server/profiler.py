"""The service that records a running engine for a while."""

from __future__ import annotations

import asyncio
from base64 import b64encode

from tidegate.protocol.profile import EngineProfile, ProfileRequest
from tidegate_runtime.engine.engine import Engine
from tidegate_runtime.errors import RequestRefused
from tidegate_runtime.profiling.recorder import Recorder


class Profiler:
    """Records one profile at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_recording = False

    async def profile(self, request: ProfileRequest, replica_id: str) -> EngineProfile:
        """Record the next seconds. Raises RequestRefused while another one is, EngineDead."""
        if self._is_recording:
            raise RequestRefused(
                "A profile of this replica is running; ask again when it has ended.",
                code="profile_running",
                status=409,
            )
        self._is_recording = True
        try:
            from tidegate_runtime.profiling.operators import TorchOperators

            recorder = Recorder(TorchOperators())
            async with self._engine.watched(recorder):
                await asyncio.sleep(request.seconds)
            return await asyncio.to_thread(_told, recorder, replica_id)
        finally:
            self._is_recording = False


def _told(recorder: Recorder, replica_id: str) -> EngineProfile:
    from tidegate_runtime.profiling.summary import summarize
    from tidegate_runtime.profiling.trace import gzipped_trace

    return EngineProfile(
        summary=summarize(recorder.recording(), replica_id),
        trace=b64encode(gzipped_trace(recorder)).decode(),
    )
