"""A control plane's part that talks to AWS, in a process of its own, to be killed.

python -m tests.integration.provision.aws.doomed DIRECTORY PLUGIN_ADDRESS
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc
from tests.infra_engine.command_double import PulumiDouble
from tests.infra_engine.plugins import Stub
from tests.integration.provision.aws.conftest import PACE, SETTINGS, aws_launch

from tidegate_controlplane.clock import SystemClock
from tidegate_controlplane.provision.aws.opening import open_aws


async def main(directory: Path, address: str) -> None:
    stub = Stub(grpc.insecure_channel(address))
    pulumi = PulumiDouble(directory / "state", {"aws": stub, "aws-native": stub})
    place = await open_aws(
        SETTINGS, directory / "aws", SystemClock(), asyncio.Event(), lambda: pulumi, pace=PACE
    )
    await place.start(aws_launch())
    await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
