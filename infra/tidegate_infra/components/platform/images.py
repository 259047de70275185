"""Where images are pulled from: repositories of ECR, by the address of an image."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tidegate.spec import SpecIssue

ECR = re.compile(
    r"^(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com/"
    r"(?P<repository>[a-z0-9][a-z0-9._/-]*)(?:[:@].+)$"
)
"""`ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY:TAG`, or `@sha256:…`."""


def repository_arn(image: str | None) -> str | None:
    """Of the repository that holds it; None when it is none of ECR's."""
    found = ECR.match(image or "")
    return found and (
        f"arn:aws:ecr:{found['region']}:{found['account']}:repository/{found['repository']}"
    )


def image_issues(field: str, image: object, region: str, *, remedy: str) -> Iterator[SpecIssue]:
    """What is no image of ECR in the region; silent on outputs, which are known later."""
    if not isinstance(image, str):
        return
    found = ECR.match(image)
    if found is None or found["region"] != region:
        yield SpecIssue(
            field,
            image,
            f"must be ACCOUNT.dkr.ecr.{region}.amazonaws.com/REPOSITORY:TAG, or @sha256:…; "
            f"{remedy}",
        )
