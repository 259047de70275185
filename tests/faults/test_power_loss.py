"""Power loss: what was synced is there, of the rest anything may be; what was promised holds."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.faults import journal
from tests.faults.checker import Verdict, check
from tests.faults.client import Client
from tests.faults.history import Event, History, until
from tests.faults.house import House, key_of, url_of, work_through
from tests.faults.plane import Start
from tests.faults.power_loss import LOST, NAMES, SOME, disk_at, lose_power, write_out
from tests.faults.replica import answer_to

SEED = 5


@dataclass(frozen=True)
class Recorded:
    """A run that nothing happened to, and all that it did to its disk."""

    start: Start
    ops: list[journal.Op]
    events: list[Event]

    def moments(self, number: int) -> list[int]:
        """Operations before which the power goes, spread over the run from its first promise."""
        promised = min(event.at for event in self.events if event.what == "accepted")
        first = next(i for i, op in enumerate(self.ops) if op.at > promised)
        return sorted(random.Random(SEED).sample(range(first, len(self.ops)), number))


def record(house: House, data_dir: Path) -> Recorded:
    start = replace(house.furnish(data_dir), journal=f"{data_dir}.journal")
    history = History(data_dir.with_suffix(".history"))
    house.replica.asked.clear()
    client = Client(url_of(start), key_of(start), history)
    with contextlib.closing(client), house.open(start):
        work_through(client)
    return Recorded(start, journal.read(Path(f"{data_dir}.journal")), list(history))


def recover(house: House, run: Recorded, moment: int, how: str, place: Path) -> Verdict:
    """The verdict on a platform that starts on what the disk held after `moment`."""
    recorded = Path(run.start.data_dir)
    disk = disk_at(run.ops, moment, recorded, house.template)
    lose_power(disk, how, random.Random(moment))
    write_out(disk, recorded, house.template, place)
    start = replace(run.start, data_dir=str(place), journal=None)
    before = until(run.events, run.ops[moment].at, answer_to)
    history = History(place.with_suffix(".history"), before)
    client = Client(url_of(start), key_of(start), history)
    with contextlib.closing(client), house.open(start):
        client.finish(sorted({event.id for event in before if event.what == "accepted"}))
        for event in before:
            if event.what == "batch":
                client.finish_batch(event.id)
        client.list_all()
    return check(history, answer_to)


@pytest.fixture(scope="module")
def recorded(fault_house: House, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record(fault_house, tmp_path_factory.mktemp("recorded") / "data")


@pytest.mark.parametrize("how", [LOST, NAMES])
def test_what_was_promised_survives_a_power_loss(
    how, fault_house: House, recorded, tmp_path, ledger
):
    for moment in recorded.moments(1):
        verdict = recover(fault_house, recorded, moment, how, tmp_path / f"{how}-{moment}")
        ledger.note(f"power_{how}", verdict)


@pytest.mark.soak
@pytest.mark.parametrize("how", [LOST, NAMES, SOME])
def test_what_was_promised_survives_a_power_loss_at_any_moment(
    how, fault_house: House, recorded, tmp_path, ledger
):
    for moment in recorded.moments(25):
        verdict = recover(fault_house, recorded, moment, how, tmp_path / f"{how}-{moment}")
        ledger.note(f"power_{how}", verdict)
