"""One control plane as a process of its own: `plane_process.py SETTINGS_JSON NOTES`.

Whenever the fence lets a write of its reconciler through, it notes the term in the file NOTES.
While there is a file NOTES.stop, it stops itself right before the next write, with a decision in
hand, and notes when it goes on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tidegate_controlplane.connection import connect
from tidegate_controlplane.peers.fence import Fenced
from tidegate_controlplane.process import running
from tidegate_controlplane.provision.start import SpawningStarter
from tidegate_controlplane.settings import Settings

NOTES = Path(sys.argv[2])
STOP = NOTES.with_suffix(".stop")
REPLICA = (sys.executable, str(Path(__file__).with_name("replica.py")))
write = Fenced.write


async def noted_write(self, unit):
    if STOP.exists():
        STOP.unlink()
        os.kill(os.getpid(), signal.SIGSTOP)
        note("goes on")

    def let_through(session):
        note(f"{self._epoch}")
        return unit(session)

    return await write(self, let_through)


def note(line: str) -> None:
    with NOTES.open("a") as notes:
        notes.write(f"{line}\n")


async def main() -> None:
    Fenced.write = noted_write
    settings = Settings.model_validate_json(sys.argv[1])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with running(settings, SpawningStarter(REPLICA)) as (services, _):
        await connect(services, "http://nowhere")
        note("serving")
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
