"""Who is next."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tidegate_controlplane.domain.hold import HoldLine


@dataclass(eq=False)
class Item:
    project_id: str
    priority: int = 0
    rounds: int = 0
    """Admissions of other projects since it was first of its own."""


def filled(*items: Item) -> HoldLine[Item]:
    line: HoldLine[Item] = HoldLine()
    for item in items:
        line.push(item)
    return line


def popped(line: HoldLine[Item]) -> str:
    return "".join(line.pop().project_id for _ in range(len(line)))


def test_projects_take_turns_however_many_requests_one_has() -> None:
    assert popped(filled(*(Item("a") for _ in range(5)), Item("b"), Item("c"), Item("b"))) == (
        "abcabaaa"
    )


def test_the_smaller_priority_goes_first_whenever_it_came() -> None:
    line = filled(Item("batch", 2), Item("async", 1), Item("sync", 0))
    assert [line.pop().project_id for _ in range(3)] == ["sync", "async", "batch"]


def test_what_was_admitted_before_goes_to_the_front_of_its_project() -> None:
    first, back = Item("a"), Item("a")
    line = filled(first)
    line.push(back, front=True)
    assert [line.pop(), line.pop()] == [back, first]


def test_an_empty_line_has_nobody() -> None:
    line = filled()
    assert line.first() is None
    with pytest.raises(IndexError):
        line.pop()


def test_who_does_not_wait_cannot_be_taken_out() -> None:
    with pytest.raises(KeyError):
        filled(Item("a")).remove(Item("a"))


class Line(RuleBasedStateMachine):
    """Against a plain list: nobody is lost, and everybody has a turn in each round."""

    def __init__(self) -> None:
        super().__init__()
        self.line: HoldLine[Item] = HoldLine()
        self.waiting: list[Item] = []

    @rule(project=st.sampled_from("abc"), priority=st.integers(0, 2))
    def push(self, project: str, priority: int) -> None:
        item = Item(project, priority)
        self.line.push(item)
        self.waiting.append(item)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.waiting))
        self.line.remove(item)
        self.waiting.remove(item)

    @precondition(lambda self: self.waiting)
    @rule()
    def admit(self) -> None:
        item = self.line.pop()
        self.waiting.remove(item)
        level = [each for each in self.waiting if each.priority == item.priority]
        assert item.priority == min(each.priority for each in [item, *self.waiting])
        for project in {each.project_id for each in level} - {item.project_id}:
            first = next(each for each in level if each.project_id == project)
            first.rounds += 1
            assert first.rounds <= 2, "both others have had their turn"

    @invariant()
    def nobody_is_lost(self) -> None:
        assert len(self.line) == len(self.waiting)
        for project in "abc":
            held = sum(each.project_id == project for each in self.waiting)
            assert self.line.of_project(project) == held
        if self.waiting:
            assert self.line.first() in self.waiting


TestLine = Line.TestCase
TestLine.settings = settings(max_examples=60, stateful_step_count=40)
