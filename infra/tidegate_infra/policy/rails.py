"""The guard rails together: what a stack of Tidegate never does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidegate_infra.policy.declared import Declared
from tidegate_infra.policy.encryption import encryption_findings
from tidegate_infra.policy.finding import Finding
from tidegate_infra.policy.public import public_findings
from tidegate_infra.policy.spend import spend_findings
from tidegate_infra.policy.waking import waking_findings
from tidegate_infra.policy.wildcard import wildcard_findings


@dataclass(frozen=True)
class GuardRails:
    """What is held against a stack, beyond what always is."""

    max_monthly_usd: float | None = None
    """Limit of what runs at rest; without one, nothing is summed."""
    prices: Mapping[str, float] = field(default_factory=dict)
    """USD per hour, by instance type or unit of `at_rest`."""
    public: bool = False
    """True lets what faces the internet pass: an ALB that is public on purpose."""

    def findings(self, resources: Sequence[Declared]) -> list[Finding]:
        """Every guard rail that the resources break. No I/O, no clock."""
        found = [
            *encryption_findings(resources),
            *wildcard_findings(resources),
            *waking_findings(resources),
        ]
        if not self.public:
            found += public_findings(resources)
        if self.max_monthly_usd is not None:
            found += spend_findings(resources, self.max_monthly_usd, self.prices)
        return found
