"""How deep a JSON document is nested, found level by level, so that depth costs no stack."""

from __future__ import annotations

from typing import Any


def is_within(document: object, depth: int) -> bool:
    """Whether no object or array lies more than `depth` levels deep."""
    level: list[Any] = [document]
    for _ in range(depth):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return True
    return False
