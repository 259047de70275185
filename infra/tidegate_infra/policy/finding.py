"""What a guard rail says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One broken guard rail: which, by whom, and what to do."""

    rail: str
    """`public`, `encryption`, `wildcard`, `waking` or `spend`"""
    resource: str
    message: str

    def __str__(self) -> str:
        return f"{self.rail}: {self.resource}: {self.message}"
