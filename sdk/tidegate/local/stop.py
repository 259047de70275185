"""Stop the platform on this machine."""

from __future__ import annotations

import os
import signal
import time

from tidegate.errors import LocalError
from tidegate.local.process import ProcessId

POLL_S = 0.1


def stop(process: ProcessId, timeout_s: float) -> None:
    """Ask it to finish what it has and end; return when it is gone.

    Raises LocalError when it is another user's, or still there after `timeout_s` seconds.
    """
    try:
        if process.is_alive:
            os.kill(process.pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise LocalError(
            f"process {process.pid} belongs to another user; stop it as them"
        ) from error
    began_s = time.monotonic()
    while process.is_alive:
        if time.monotonic() - began_s > timeout_s:
            raise LocalError(
                f"process {process.pid} was still running after {timeout_s:g} s; "
                f"end it with 'kill -9 {process.pid}': durable work is kept"
            )
        time.sleep(POLL_S)
