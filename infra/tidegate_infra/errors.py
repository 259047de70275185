"""What the infrastructure package refuses, as one tree.

InfraError
├── InvalidArguments    a component cannot be made from these; `issues` name every field
├── GuardRailsBroken    resources that nobody may declare; `findings` name each
├── NameTaken           something of that name is there already
├── ChangedElsewhere    what the stack knows is not what is there
├── UnknownResource     a type that this provider does not know
└── StartFailed         made, but it does not serve
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidegate.spec import SpecIssue
from tidegate_infra.policy.finding import Finding


class InfraError(Exception):
    """The root: whatever this package says on purpose."""


class InvalidArguments(InfraError):
    """Arguments that cannot be; `issues` holds every fault: field, value, and what to do."""

    def __init__(self, what: str, issues: Sequence[SpecIssue]) -> None:
        self.issues = tuple(issues)
        super().__init__(
            f"{what}: " + "; ".join(f"{i.field}: {i.message}, got {i.value!r}" for i in issues)
        )


class GuardRailsBroken(InfraError):
    """Resources that break guard rails, one line each: the rail, the resource, what to do."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in findings))


class NameTaken(InfraError):
    """A resource is never made of what is there already; import it, or choose another name."""


class ChangedElsewhere(InfraError):
    """What the stack knows is not what is there; refresh first."""


class UnknownResource(InfraError):
    """A type that this version of the provider does not know."""


class StartFailed(InfraError):
    """It was made, and has this id, but it does not serve."""

    def __init__(self, resource_id: str, outputs: Mapping[str, Any], reason: str) -> None:
        self.resource_id = resource_id
        self.outputs = outputs
        super().__init__(reason)
