"""How much a deployment can take, and when a lease is lost."""

from __future__ import annotations

import pytest

from tidegate.spec import Mode
from tidegate_controlplane.domain.sighting import Sighting, is_lost
from tidegate_controlplane.store.leases import Held, Lease
from tidegate_controlplane.work.dispatch import Room, room
from tidegate_controlplane.work.leases import observe_beats

LEASE = Lease("inv_1", 1)


def held(beat, lease=LEASE):
    return Held(lease, "wrk_1", beat, attempt=1, max_attempts=3, cancel_requested=False)


@pytest.mark.parametrize(
    ("capacity", "busy", "mode", "expected"),
    [
        (0, 0, Mode.REALTIME, Room(0, 0)),
        (8, 0, Mode.REALTIME, Room(8, 7)),
        (16, 0, Mode.SERVERLESS, Room(16, 14)),
        (8, 7, Mode.REALTIME, Room(1, 0)),
        (8, 8, Mode.REALTIME, Room(0, 0)),
        (8, 99, Mode.REALTIME, Room(0, 0)),
        (8, 7, Mode.ASYNC, Room(1, 1)),
        (8, 0, Mode.BATCH, Room(8, 8)),
    ],
)
def test_lines_leave_a_share_alone_where_somebody_may_be_waiting(capacity, busy, mode, expected):
    assert room(capacity, busy, mode) == expected


@pytest.mark.parametrize("mode", Mode)
def test_a_replica_for_one_request_at_a_time_still_does_batches(mode):
    assert room(1, 0, mode) == Room(1, 1)


def test_a_lease_is_lost_when_its_beat_does_not_change_for_long_enough():
    seen = observe_beats({}, [held(beat=4)], now_s=100.0)
    seen = observe_beats(seen, [held(beat=4)], now_s=129.0)
    assert seen == {LEASE: Sighting(4, 100.0)}
    assert not is_lost(seen[LEASE], now_s=129.0, lease_s=30.0)
    assert is_lost(seen[LEASE], now_s=130.0, lease_s=30.0)


def test_a_beat_that_changes_begins_the_time_anew_even_when_it_goes_down():
    seen = observe_beats({LEASE: Sighting(4, 100.0)}, [held(beat=3)], now_s=129.0)
    assert seen == {LEASE: Sighting(3, 129.0)}


def test_a_new_epoch_is_a_new_lease_and_an_old_one_is_forgotten():
    newer = Lease("inv_1", 2)
    seen = observe_beats({LEASE: Sighting(4, 100.0)}, [held(4, newer)], now_s=129.0)
    assert seen == {newer: Sighting(4, 129.0)}
