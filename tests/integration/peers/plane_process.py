"""One control plane as a process of its own: `plane_process.py SETTINGS_JSON NOTES`.

It notes each commit of its reconciler in the file NOTES, as `EPOCH landed` or `EPOCH void`. While
there is a file NOTES.stop, it stops itself right before the next of them, with a decision in hand.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tidegate_controlplane.peers.fence import Fenced
from tidegate_controlplane.process import connect, running
from tidegate_controlplane.provision.start import SpawningStarter
from tidegate_controlplane.settings import Settings
from tidegate_controlplane.store.leadership import Deposed

NOTES = Path(sys.argv[2])
STOP = NOTES.with_suffix(".stop")
REPLICA = (sys.executable, str(Path(__file__).with_name("replica.py")))
write = Fenced.write


async def noted_write(self, unit):
    if STOP.exists():
        STOP.unlink()
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        found = await write(self, unit)
    except Deposed:
        note(f"{self._epoch} void")
        raise
    note(f"{self._epoch} landed")
    return found


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
