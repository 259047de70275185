"""How deep a document is nested."""

from __future__ import annotations

from tidegate_controlplane.domain.nesting import is_within


def test_a_document_of_exactly_the_depth_is_within_it() -> None:
    assert is_within({"a": [{"b": 1}]}, 3)


def test_one_level_more_is_not() -> None:
    assert not is_within({"a": [{"b": []}]}, 3)


def test_width_is_not_depth() -> None:
    assert is_within([{} for _ in range(1000)], 2)
