"""Who is next among those that wait: by priority, then project by project, then by arrival.

Within a priority the projects take turns, one request each, so a project that sends a thousand
delays another's first request by one. Every operation takes constant time, because each line is a
dict in order: a request that gives up is taken out of the middle without a search.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Generic, Protocol, TypeVar


class Waits(Protocol):
    """What a line has to know of a request; hashed by identity."""

    @property
    def priority(self) -> int:
        """The smaller goes first."""
        ...

    @property
    def project_id(self) -> str: ...


T = TypeVar("T", bound=Waits)
_Projects = OrderedDict[str, OrderedDict[T, None]]


class HoldLine(Generic[T]):
    """Requests in the order in which they are to be admitted."""

    def __init__(self) -> None:
        self._levels: dict[int, _Projects[T]] = {}
        """By priority; a project in front is the next to have its turn. No line in it is empty."""
        self._held: Counter[str] = Counter()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def of_project(self, project_id: str) -> int:
        """How many of them are one project's."""
        return self._held[project_id]

    def push(self, item: T, *, front: bool = False) -> None:
        """Add `item` at the end of its project's line, or in front when it had been admitted."""
        projects = self._levels.setdefault(item.priority, OrderedDict())
        line = projects.setdefault(item.project_id, OrderedDict())
        line[item] = None
        if front:
            line.move_to_end(item, last=False)
        self._count(item, 1)

    def first(self) -> T | None:
        """The next one; None when nobody waits."""
        if not self._levels:
            return None
        projects = self._levels[min(self._levels)]
        return next(iter(next(iter(projects.values()))))

    def pop(self) -> T:
        """Take out the next one; its project's turn is over. Raises IndexError when none waits."""
        item = self.first()
        if item is None:
            raise IndexError("nobody waits")
        projects = self._levels[item.priority]
        projects.move_to_end(item.project_id)
        self.remove(item)
        return item

    def remove(self, item: T) -> None:
        """Take out `item`, wherever it stands. Raises KeyError when it does not wait."""
        projects = self._levels[item.priority]
        line = projects[item.project_id]
        del line[item]
        if not line:
            del projects[item.project_id]
        if not projects:
            del self._levels[item.priority]
        self._count(item, -1)

    def _count(self, item: T, change: int) -> None:
        self._length += change
        self._held[item.project_id] += change
        if not self._held[item.project_id]:
            del self._held[item.project_id]
