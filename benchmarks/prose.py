"""English prose that every machine with Python has: the help topics of the standard library."""

from __future__ import annotations

import pydoc_data.topics


def prose() -> str:
    """All help topics in the order of their names, without the ruled lines under the titles."""
    topics: dict[str, str] = pydoc_data.topics.topics
    lines = "\n".join(topics[name] for name in sorted(topics)).splitlines()
    return "\n".join(line for line in lines if not _is_rule(line))


def _is_rule(line: str) -> bool:
    return len(line) > 3 and len(set(line)) == 1 and line[0] in "*=-~^"
