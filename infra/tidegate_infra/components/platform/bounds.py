"""The bounds that AWS sets on the parts of a platform, each with its source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tidegate.spec import SpecIssue

BOUNDS: dict[str, tuple[int, int]] = {
    "control_planes": (0, 100),
    "monthly_budget_usd": (1, 10**9),
    "spool_gb": (21, 200),  # Fargate's ephemeral storage
    "database_gb": (20, 6553),  # RDS, gp3; it may grow to ten times as much, of 65,536
    "backup_days": (1, 35),  # RDS
}
FARGATE_MB: dict[int, Sequence[int]] = {
    256: (512, 1024, 2048),
    512: range(1024, 4097, 1024),
    1024: range(2048, 8193, 1024),
    2048: range(4096, 16_385, 1024),
    4096: range(8192, 30_721, 1024),
    8192: range(16_384, 61_441, 4096),
    16_384: range(32_768, 122_881, 8192),
}
"""By CPU units, the memory that a task may have. Source: "Fargate task sizes" of ECS's guide."""
MOST_EMAILS = 10
"""Budgets tells as many by email of one notice."""


def bound_issues(numbers: Mapping[str, int]) -> Iterator[SpecIssue]:
    """Of the numbers of `BOUNDS`, those that AWS would refuse by themselves."""
    for name, (low, high) in BOUNDS.items():
        if not low <= numbers[name] <= high:
            yield SpecIssue(name, numbers[name], f"must be between {low} and {high}")


def fargate_issues(cpu: int, memory_mb: int) -> Iterator[SpecIssue]:
    """Of the size of a control plane's task."""
    if cpu not in FARGATE_MB:
        said = f"Fargate takes {', '.join(map(str, FARGATE_MB))}"
        yield SpecIssue("control_plane_cpu", cpu, said)
        return
    sizes = FARGATE_MB[cpu]
    if memory_mb not in sizes:
        said = f"with control_plane_cpu {cpu}, Fargate takes {', '.join(map(str, sizes))}"
        yield SpecIssue("control_plane_memory_mb", memory_mb, said)


def class_issues(database_class: str) -> Iterator[SpecIssue]:
    if not database_class.startswith("db."):
        said = "must be a class of RDS, such as db.t4g.medium"
        yield SpecIssue("database_class", database_class, said)


def hearer_issues(emails: Sequence[str]) -> Iterator[SpecIssue]:
    """Of those that hear the alarms."""
    if not emails:
        yield SpecIssue("alarm_emails", [], "name somebody who hears the alarms")
    if len(emails) > MOST_EMAILS:
        said = f"name {MOST_EMAILS} at most, such as the address of a list"
        yield SpecIssue("alarm_emails", f"{len(emails)} of them", said)
    for email in emails:
        local, _, domain = email.partition("@")
        if not local or "." not in domain or " " in email:
            yield SpecIssue("alarm_emails", email, "must be an address, such as ops@example.org")
