"""Identifiers: a prefix that says the kind, and a ULID, so that ids sort by creation."""

from __future__ import annotations

from ulid import ULID


def new_id(prefix: str) -> str:
    """For instance `dep_01m7yg8s3w9vmzqvz6b94e6hpe`."""
    return f"{prefix}_{str(ULID()).lower()}"
