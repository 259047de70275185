"""The judge itself: good histories pass, and each kind of bad one is found."""

from __future__ import annotations

import pytest
from tests.faults.checker import check
from tests.faults.history import Event, History, until


def said(prompt):
    return f"echo {prompt}"


def accepted(number, *, key=None, prompt=None, keyed=True):
    prompt = prompt or f"p{number}"
    return Event("accepted", key or f"k{number}", prompt, f"inv_{number}", keyed=keyed)


def ended(number, status="succeeded"):
    return Event("state", id=f"inv_{number}", status=status)


def result(number, text=None):
    return Event("result", id=f"inv_{number}", text=text or f"echo p{number}")


def batch(status="completed", lines=("a", "b"), sent=("a", "b")):
    return [
        Event("batch", id="batch_1", expected={each: f"echo {each}" for each in sent}),
        Event("batch_state", id="batch_1", status=status),
        *(Event("line", id="batch_1", custom_id=each, text=f"echo {each}") for each in lines),
    ]


GOOD = [accepted(1), ended(1, "queued"), ended(1, "running"), ended(1), result(1)]


def test_a_run_in_which_all_was_done_once_is_good():
    again = [ended(1), result(1)]
    verdict = check([*GOOD, accepted(1), *again, *batch()], said)
    assert verdict.is_good and verdict.accepted == 2


FORGED = {
    "an accepted request that never ended": ("lost", [accepted(1), ended(1, "running")]),
    "an accepted request of which nothing was heard": ("lost", [accepted(1)]),
    "a request that ended as dead": ("lost", [accepted(1), ended(1, "dead")]),
    "a success without a result": ("lost", [accepted(1), ended(1)]),
    "a request that ended twice": ("doubled", [*GOOD, ended(1, "canceled"), ended(1)]),
    "a request that ran again after its end": ("doubled", [*GOOD, ended(1, "queued")]),
    "a result that changed": ("doubled", [*GOOD, result(1, "echo p1 again")]),
    "a result of another request": ("wrong", [accepted(1), ended(1), result(1, "echo p2")]),
    "a key that made two requests": (
        "doubled",
        [*GOOD, accepted(2, key="k1", prompt="p2"), ended(2), result(2)],
    ),
    "an id that two requests were given": ("doubled", [*GOOD, accepted(1, key="k2", prompt="p2")]),
    "a request that nobody made": ("doubled", [*GOOD, Event("listed", id="inv_9", text="echo x")]),
    "a lost request that is there twice": (
        "doubled",
        [
            Event("lost", key="k", text="echo x"),
            Event("lost", key="k", text="echo x"),
            Event("listed", id="inv_8", text="echo x"),
            Event("listed", id="inv_9", text="echo x"),
        ],
    ),
    "a key that made a second request unseen": (
        "doubled",
        [
            Event("lost", key="k1", text="echo p1"),
            *GOOD,
            Event("listed", id="inv_1", text="echo p1"),
            Event("listed", id="inv_9", text="echo p1"),
        ],
    ),
    "a batch that did not end": ("lost", batch(status="in_progress")),
    "a batch that failed": ("lost", batch(status="failed")),
    "a batch without one of its lines": ("lost", batch(lines=("a",))),
    "a batch with a line twice": ("doubled", batch(lines=("a", "b", "b"))),
    "a batch with a line of another": ("wrong", batch(lines=("a", "b", "c"))),
    "a batch whose lines were exchanged": (
        "wrong",
        [*batch(lines=("a",)), Event("line", id="batch_1", custom_id="b", text="echo a")],
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_the_checker_finds(what):
    kind, events = FORGED[what]
    verdict = check(events, said)
    found = {name for name in ("lost", "doubled", "wrong") if getattr(verdict, name)}
    assert kind in found, verdict


def test_a_request_whose_answer_was_lost_may_be_there_once():
    lost = Event("lost", key="k", text="echo x")
    assert check([lost, Event("listed", id="inv_9", text="echo x")], said).is_good
    assert check([lost], said).is_good


def test_without_a_key_each_lost_answer_may_have_made_a_request():
    lost = Event("lost", key="n", text="echo x", keyed=False)
    listed = [Event("listed", id=f"inv_{n}", text="echo x") for n in range(2)]
    assert check([lost, lost, *listed], said).is_good
    assert not check([lost, *listed], said).is_good


def test_a_history_is_read_as_it_was_written(tmp_path):
    history = History(tmp_path / "history")
    history.add("accepted", key="k", prompt="p", id="inv_1")
    history.add("batch", id="batch_1", expected={"a": "echo a"})
    first, second = history
    assert first == Event("accepted", "k", "p", "inv_1", at=first.at)
    assert second == Event("batch", id="batch_1", expected={"a": "echo a"}, at=second.at)
    assert 0 < first.at <= second.at


def test_a_history_that_is_cut_has_lost_what_was_on_its_way():
    events = [
        Event("submitted", "k1", "p1", at=1),
        Event("submitted", "k2", "p2", at=2),
        Event("accepted", "k1", "p1", "inv_1", at=3),
        Event("accepted", "k2", "p2", "inv_2", at=5),
        Event("line", id="batch_1", at=1),
    ]
    cut = until(events, 4, said)
    assert [event.what for event in cut] == ["submitted", "submitted", "accepted", "lost"]
    assert cut[-1] == Event("lost", "k2", text="echo p2")
