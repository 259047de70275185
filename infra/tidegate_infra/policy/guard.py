"""Guard rails around a Pulumi program, at preview and at update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pulumi

from tidegate_infra.errors import GuardRailsBroken
from tidegate_infra.policy.collect import Collector
from tidegate_infra.policy.rails import GuardRails


@contextmanager
def guard(rails: GuardRails = GuardRails()) -> Iterator[None]:
    """Hold the guard rails against everything that is declared inside the block.

        with guard(GuardRails(max_monthly_usd=300, prices=prices)):
            Platform("tidegate", …)

    The program ends with `GuardRailsBroken` naming every resource and what to do. `pulumi up`
    previews first, so nothing is made by then.
    """
    collector = Collector()
    collector.start()
    yield
    collector.stop()
    # An exported output is awaited by the program, so an error in it ends the program.
    pulumi.export("tidegateGuardRails", pulumi.Output.from_input(_verdict(collector, rails)))


async def _verdict(collector: Collector, rails: GuardRails) -> str:
    findings = rails.findings(await collector.resources())
    if findings:
        raise GuardRailsBroken(findings)
    return "hold"
