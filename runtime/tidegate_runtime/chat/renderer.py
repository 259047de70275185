"""Renders chat templates in a process that may be ended, one at a time."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any, cast

from tidegate_runtime.chat.process import RenderProcess, spawn
from tidegate_runtime.chat.render_process import Limits, as_message, read_message
from tidegate_runtime.errors import RequestRefused

log = logging.getLogger(__name__)

LIMITS = Limits(cpu_s=2.0, wall_s=10.0)
"""Ordinary renderings take a thousandth of it. One waits for `wall_s` for those before, too."""
StartProcess = Callable[[Limits], RenderProcess]
_TRIES = 2
_GRACE_S = 1.0


class Renderer:
    """The process is started by the first rendering, or by `warm` before it, and replaced when a
    template had it ended. It ends with this object, and when this process does.

    Renderings wait for each other: they take a fraction of a millisecond, and one that is stopped a
    few seconds. Any thread may call.
    """

    def __init__(self, limits: Limits = LIMITS, start: StartProcess = spawn) -> None:
        self._limits = limits
        self._start = start
        self._turn = threading.Lock()
        self._process: RenderProcess | None = None
        self._ending: Callable[[], int | None] = lambda: None

    def warm(self, template: str) -> None:
        """Start the process and compile a template in it, without waiting for either."""
        threading.Thread(target=self._warm, args=(template,), name="templates", daemon=True).start()

    def render(self, template: str, variables: Mapping[str, Any] | None) -> str:
        """The text that a template makes of variables, which are JSON; None only compiles it.

        Raises RequestRefused when the template refuses them, or was stopped.
        """
        message = as_message({"template": template, "variables": variables})
        if not self._turn.acquire(timeout=self._limits.wall_s):
            raise RequestRefused(
                "messages: the chat template has been busy with others for "
                f"{self._limits.wall_s:g} s; try again later.",
                code="chat_template_busy",
                status=503,
                retry_after_s=1,
            )
        try:
            reply = self._ask(message)
        finally:
            self._turn.release()
        if "error" in reply:
            raise _refused(
                f"The model's chat template does not take these messages: {reply['error']}.",
                "chat_template_error",
            )
        return cast("str", reply["text"])

    def _warm(self, template: str) -> None:
        with suppress(RequestRefused):
            self.render(template, None)

    def _ask(self, message: bytes) -> dict[str, Any]:
        for _ in range(_TRIES):
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(message)
                process.stdin.flush()
            except BrokenPipeError:
                # It died while nothing was asked of it, so another one may do.
                self._end()
                continue
            if (reply := read_message(process.stdout)) is not None:
                return cast("dict[str, Any]", json.loads(reply))
            raise self._stopped(self._end())
        raise self._stopped(0)

    def _running(self) -> RenderProcess:
        if self._process is None:
            self._process = self._start(self._limits)
            self._ending = weakref.finalize(self, _end, self._process)
        return self._process

    def _end(self) -> int:
        """End the process; returns its exit status."""
        self._process = None
        return cast("int", self._ending())

    def _stopped(self, status: int) -> RequestRefused:
        limits = self._limits
        spent: dict[int, float] = {signal.SIGPROF: limits.cpu_s, signal.SIGALRM: limits.wall_s}
        reason = f"its process ended with status {status}"
        if -status in spent:
            reason = f"it ran for more than {spent[-status]:g} s"
        log.warning("the chat template was stopped: %s", reason)
        return _refused(
            f"The model's chat template was stopped: {reason}. Send fewer or other messages, or "
            "give the model a template that ends.",
            "chat_template_stopped",
        )


def _end(process: RenderProcess) -> int:
    for pipe in (process.stdin, process.stdout):
        with suppress(BrokenPipeError):
            cast("IO[bytes]", pipe).close()
    try:
        # Its pipes are closed, so it ends by itself, or has been ended.
        return process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _refused(message: str, code: str) -> RequestRefused:
    return RequestRefused(message, param="messages", code=code)
