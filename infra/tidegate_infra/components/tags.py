"""The tags that AWS takes. Source: "Tag naming limits and requirements" of its tagging guide."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tidegate.spec import SpecIssue

MOST = 45
"""AWS takes 50 of a resource; the rest is for those that are put on it here and by AWS."""
KEY = re.compile(r"^(?!aws:)[\w .:/=+@-]{1,128}$", re.IGNORECASE)
VALUE = re.compile(r"^[\w .:/=+@-]{0,256}$")


def tag_issues(tags: Mapping[str, str]) -> Iterator[SpecIssue]:
    """Every tag that some service would refuse."""
    if len(tags) > MOST:
        yield SpecIssue("tags", f"{len(tags)} of them", f"name {MOST} at most")
    for key, value in tags.items():
        if not KEY.match(key):
            said = "a key is up to 128 letters, digits, spaces and _.:/=+-@, and not AWS's own"
            yield SpecIssue("tags", key, said)
        elif not VALUE.match(value):
            said = "a value is up to 256 letters, digits, spaces and _.:/=+-@"
            yield SpecIssue(f"tags.{key}", value, said)
