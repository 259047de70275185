"""What a batch needs next, for every state and every kind of lines."""

from __future__ import annotations

from itertools import product

import pytest

from tidegate.protocol.work import BatchStatus
from tidegate_controlplane.domain.states import BATCH
from tidegate_controlplane.store.batches import Lines
from tidegate_controlplane.work.batch_steps import Step, gives_up, next_step

B = BatchStatus

LINES = {
    "queued": Lines(queued=True),
    "running": Lines(running=True),
    "ending": Lines(queued=True, running=True, cut_off=True),
    "ended": Lines(),
    "cut off": Lines(cut_off=True),
}
OPEN = ("queued", "running", "ending")


def expected(status, lines, overdue):
    if status.is_final:
        return Step.NOTHING
    if status is B.VALIDATING:
        return Step.VALIDATE
    if status is B.FINALIZING:
        return Step.COMPLETE
    if status is B.CANCELLING:
        return Step.END_LINES if lines in OPEN else Step.CANCEL
    if lines in OPEN:
        return Step.END_LINES if overdue else Step.WAIT
    return Step.EXPIRE if lines == "cut off" else Step.FINALIZE


@pytest.mark.parametrize(
    ("status", "lines", "overdue"), list(product(BatchStatus, LINES, [False, True]))
)
def test_each_state_has_its_step(status, lines, overdue):
    assert next_step(status, LINES[lines], overdue=overdue) is expected(status, lines, overdue)


@pytest.mark.parametrize(("status", "overdue"), list(product(BatchStatus, [False, True])))
def test_only_a_batch_that_never_began_gives_up_for_its_storage_and_only_when_it_is_late(
    status, overdue
):
    assert gives_up(status, overdue=overdue) is (status is B.VALIDATING and overdue)


LEADS_TO = {
    Step.VALIDATE: {B.IN_PROGRESS, B.FAILED},
    Step.FINALIZE: {B.FINALIZING},
    Step.COMPLETE: {B.COMPLETED},
    Step.EXPIRE: {B.EXPIRED},
    Step.CANCEL: {B.CANCELLED},
}


@pytest.mark.parametrize(
    ("status", "lines", "overdue"), list(product(BatchStatus, LINES, [False, True]))
)
def test_a_step_only_leads_where_the_table_of_states_allows(status, lines, overdue):
    step = next_step(status, LINES[lines], overdue=overdue)
    assert LEADS_TO.get(step, set()) <= BATCH[status]
