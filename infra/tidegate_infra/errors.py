"""What the infrastructure package refuses, as one tree.

InfraError
├── InvalidArguments    a component cannot be made from these; `issues` name every field
├── FileRefused         the file that declares the infrastructure is wrong; `issues` say where
├── GuardRailsBroken    resources that nobody may declare; `findings` name each
├── NameTaken           something of that name is there already
├── ChangedElsewhere    what the stack knows is not what is there
├── UnknownResource     a type that this provider does not know
├── StartFailed         made, but it does not serve
└── StackFailed         a stack is not as it was asked to be; the message says what to type
    └── PulumiMissing   there is no `pulumi` command that could change one
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
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


class FileRefused(InfraError):
    """One line for each fault of a file: field, value, and what to do."""

    def __init__(self, path: Path, issues: Sequence[SpecIssue]) -> None:
        self.issues = tuple(issues)
        super().__init__("\n".join(f"{path}: {_sentence(issue)}" for issue in issues))


def _sentence(issue: SpecIssue) -> str:
    where = f"{issue.field}: " if issue.field else ""
    got = "" if issue.value is None or ", got " in issue.message else f", got {issue.value!r}"
    return f"{where}{issue.message}{got}"


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


class StackFailed(InfraError):
    """A stack is not as it was asked to be; the message ends with what to type next."""


class PulumiMissing(StackFailed):
    """There is no `pulumi` command, or none that fits."""
