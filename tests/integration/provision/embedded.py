"""A control plane's end of an embedded cluster: `embedded.py DIRECTORY`, until it is killed.

Prints the pid of a ready replica, and those of what runs or schedules below this one.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

import psutil
from tests.integration.provision.launch import COMMAND, launch
from tests.integration.provision.place import is_ready
from tests.integration.provision.ray_cluster import SETTINGS

from tidegate.protocol.replica import Telemetry
from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.provision.ray.agent import Orders
from tidegate_controlplane.provision.ray.provisioner import RayProvisioner
from tidegate_controlplane.settings import RaySettings

HELPERS = ("ray::DashboardA", "ray::RuntimeEnv")
"""Ray's own, which run nothing of ours, and look for their parent less often."""


async def main(directory: Path) -> None:
    place = RayProvisioner(
        RaySettings(address="local"),
        Orders(directory, SETTINGS, Telemetry(), command=COMMAND),
        SystemClock(),
        asyncio.Event(),
        lambda _: "a token",
    )
    await place.open()
    await place.start(replace(launch(), source="hf://played/good", task="embed"))
    while not is_ready((await place.observe(["rep_1"]))["rep_1"]):
        await asyncio.sleep(0.05)
    status = json.loads((directory / "replicas" / "rep_1" / "status.json").read_text())
    below = [
        child.pid
        for child in psutil.Process().children(recursive=True)
        if not child.name().startswith(HELPERS)
    ]
    print(json.dumps([status["pid"], *below]), flush=True)
    await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
