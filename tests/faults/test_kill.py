"""kill -9 at each failpoint, and again while the next process recovers."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults import failpoints
from tests.faults.house import House, judge

import tidegate_controlplane

NAMES = failpoints.names(Path(tidegate_controlplane.__file__).parent)
IN_MAKE_TEST = {"publish.result_kept"}
WAYS_THERE = {
    "recover.before_commit": "claim.committed=kill@1",
    "recover.committed": "claim.committed=kill@1",
    "reap.found": "claim.committed=eio@1",
    "reap.committed": "claim.committed=eio@1",
}
"""What has to happen before some are come to: a process died with a lease, or forgot one."""


def lives_of(name):
    """A life that ends at `name`, and one that ends while it takes over from that one."""
    way = WAYS_THERE.get(name)
    first = [[way], [f"{name}=kill@1"]] if way and "kill" in way else None
    first = first or [[*([way] if way else []), f"{name}=kill@1"]]
    return [*first, ["recover.before_commit=kill@1"]]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in IN_MAKE_TEST else [pytest.mark.soak])
        for name in NAMES
    ],
)
def test_a_kill_at_a_failpoint_loses_and_doubles_nothing(
    name, fault_house: House, data_dir, ledger
):
    lives = lives_of(name)
    verdict, supervisor = judge(fault_house, fault_house.furnish(data_dir), lives)
    ledger.note("kill_failpoint", verdict)
    assert supervisor.kills >= len(lives) - 1, f"nothing came to {name}: {supervisor.ends}"


def test_each_failpoint_has_a_name_of_its_own():
    assert len(NAMES) == len(set(NAMES)) > 30
