"""What the infrastructure package refuses, as one tree.

    InfraError
    └── InvalidArguments    a component cannot be made from these; `issues` name every field
"""

from __future__ import annotations

from collections.abc import Sequence

from tidegate.spec import SpecIssue


class InfraError(Exception):
    """The root: whatever this package says on purpose."""


class InvalidArguments(InfraError):
    """Arguments that cannot be; `issues` holds every fault: field, value, and what to do."""

    def __init__(self, what: str, issues: Sequence[SpecIssue]) -> None:
        self.issues = tuple(issues)
        super().__init__(
            f"{what}: " + "; ".join(f"{i.field}: {i.message}, got {i.value!r}" for i in issues)
        )
