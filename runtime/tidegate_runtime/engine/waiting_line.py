"""Who waits, and whose turn it is: strict between priorities, fair between projects."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Container
from operator import attrgetter

from tidegate_runtime.engine.sequence import Sequence

_Line = tuple[int, str]
"""A priority and a project."""


def line_of(sequence: Sequence) -> _Line:
    """The line in which a sequence waits."""
    return sequence.request.priority, sequence.request.project


class WaitingLine:
    """Waiting sequences, one line in order of arrival for each priority and project.

    Within a priority the project that was served the fewest tokens is next (the virtual token
    counter of Sheng et al. 2024, "Fairness in Serving Large Language Models"): every token that
    was run counts one, prompt or output. A project that comes back after it had nothing to do is
    counted as the least served of those present, so idling earns no credit.
    """

    def __init__(self) -> None:
        self._lines: dict[_Line, list[Sequence]] = {}
        self._served: Counter[_Line] = Counter()
        self._present: Counter[_Line] = Counter()
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    @property
    def priorities(self) -> set[int]:
        """The priorities in which somebody waits."""
        return {priority for priority, _ in self._lines}

    def arrive(self, sequence: Sequence) -> None:
        """A new sequence comes."""
        line = line_of(sequence)
        if not self._present[line]:
            others = [self._served[o] for o in self._present if o[0] == line[0] and o != line]
            self._served[line] = max(self._served[line], min(others, default=0))
        self._present[line] += 1
        self.wait(sequence)

    def wait(self, sequence: Sequence) -> None:
        """A sequence takes its place in its line; after a preemption that is where it was."""
        insort(self._lines.setdefault(line_of(sequence), []), sequence, key=attrgetter("id"))
        self._waiting += 1

    def call(self, sequence: Sequence) -> None:
        """A sequence leaves its line, to run."""
        line = line_of(sequence)
        self._lines[line].remove(sequence)
        self._waiting -= 1
        if not self._lines[line]:
            del self._lines[line]

    def leave(self, sequence: Sequence) -> None:
        """A sequence has ended; it is in no line any more."""
        line = line_of(sequence)
        self._present[line] -= 1
        if not self._present[line]:
            del self._present[line]
        if not self._present:
            self._served.clear()

    def serve(self, sequence: Sequence, tokens: int) -> None:
        """Count tokens that are run for a sequence."""
        self._served[line_of(sequence)] += tokens

    def first(self, priority: int, passed: Container[Sequence]) -> Sequence | None:
        """Whose turn it is among those of one priority, but for those in `passed`."""
        lines = [line for line in self._lines if line[0] == priority]
        for line in sorted(lines, key=lambda item: (self._served[item], self._lines[item][0].id)):
            for sequence in self._lines[line]:
                if sequence not in passed:
                    return sequence
        return None
